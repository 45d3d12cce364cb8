-- Makes the log another one to whoever holds a cursor of it, and fences every instance at its head. Periodic tasks are nobody's. Within a
-- transaction that holds the log's lock.
WITH renewed AS (
    UPDATE emberlog.log_identity l SET incarnation = gen_random_uuid()
    FROM (SELECT incarnation FROM emberlog.log_identity) before
    RETURNING before.incarnation AS previous, l.incarnation
), fenced AS (
    UPDATE emberlog.instances SET fenced_at = clock_timestamp(), fenced_head = (SELECT position FROM emberlog.head())
    WHERE fenced_at IS NULL
    RETURNING id
), freed AS (
    UPDATE emberlog.maintenance SET owner = NULL, fence = fence + 1, lease_until = '-infinity' WHERE owner IS NOT NULL
)
SELECT previous, incarnation, (SELECT count(*) FROM fenced)::integer AS fenced FROM renewed
