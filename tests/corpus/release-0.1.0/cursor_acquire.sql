-- Makes $3 the owner of projection $1, generation $2 for $4 if nobody is, under a new fence. A row that is locked has an owner at work.
UPDATE projections.cursors c
SET owner = $3, fence = c.fence + 1, lease_until = clock_timestamp() + $4::interval
FROM (
    SELECT name, generation FROM projections.cursors
    WHERE name = $1 AND generation = $2 AND (owner IS NULL OR lease_until < clock_timestamp())
    FOR UPDATE SKIP LOCKED
) free
WHERE c.name = free.name AND c.generation = free.generation
RETURNING c.position, c.fence
