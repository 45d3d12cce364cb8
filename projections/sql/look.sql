-- Where the live generation of projection $1 stands, by the database's clock. `lag_seconds` is the age of the first event not folded,
-- `still_seconds` how long the cursor has not moved.
SELECT
    c.generation, c.position, c.recorded_at, c.owner, c.fence, c.error, c.failed_position,
    c.owner IS NULL OR c.lease_until < clock_timestamp() AS free,
    h.position AS head,
    greatest(0, coalesce(extract(epoch FROM clock_timestamp() - CASE
        WHEN c.position < h.position THEN coalesce(e.recorded_at, c.recorded_at, c.updated_at) END), 0))::float8 AS lag_seconds,
    extract(epoch FROM clock_timestamp() - c.updated_at)::float8 AS still_seconds,
    (SELECT count(*) FROM projections.parked p
     WHERE p.name = c.name AND p.generation = c.generation AND p.discarded_at IS NULL)::integer AS parked
FROM projections.cursors c
CROSS JOIN emberlog.head() h
LEFT JOIN emberlog.events e ON e.position = c.position + 1
WHERE c.name = $1 AND c.state = 'live'
