-- Where projection $1, generation $2 stands, by the database's clock. `lag_seconds` is the age of the first event not folded.
SELECT
    c.position, c.recorded_at, c.owner, c.fence, c.error, c.failed_position,
    c.owner IS NULL OR c.lease_until < clock_timestamp() AS free,
    h.position AS head,
    greatest(0, coalesce(extract(epoch FROM clock_timestamp() - e.recorded_at), 0))::float8 AS lag_seconds
FROM projections.cursors c
CROSS JOIN emberlog.head() h
LEFT JOIN emberlog.events e ON e.position = c.position + 1
WHERE c.name = $1 AND c.generation = $2
