-- The newest version of each decision stream; returns one whose versions are not 1, 2, 3 and so on in the order of the log.
WITH numbered AS (
    SELECT stream, version, row_number() OVER (PARTITION BY stream ORDER BY position) AS expected
    FROM emberlog.events WHERE version IS NOT NULL
), restored AS (
    INSERT INTO emberlog.decision_streams (stream, version)
    SELECT stream, max(version) FROM numbered GROUP BY stream
)
SELECT stream FROM numbered WHERE version <> expected ORDER BY stream LIMIT 1
