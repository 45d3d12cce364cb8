-- Moves the cursor of projection $1, generation $2 from $3 past the event it halts before; returns why it halted. The owner may go on at once.
UPDATE projections.cursors c
SET position = $3 + 1, error = NULL, failed_position = NULL, failed_at = NULL, updated_at = clock_timestamp(),
    recorded_at = coalesce((SELECT e.recorded_at FROM emberlog.events e WHERE e.position = $3 + 1), c.recorded_at)
FROM (SELECT error FROM projections.cursors WHERE name = $1 AND generation = $2) was
WHERE c.name = $1 AND c.generation = $2 AND c.position = $3 AND c.failed_position = $3 + 1
RETURNING was.error
