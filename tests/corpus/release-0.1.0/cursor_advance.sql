-- Moves the cursor from $3 to $4 (recorded at $5) and extends the lease by $7, if fence $6 still owns it.
UPDATE projections.cursors
SET position = $4, recorded_at = $5, lease_until = clock_timestamp() + $7::interval, updated_at = clock_timestamp(),
    error = NULL, failed_position = NULL, failed_at = NULL
WHERE name = $1 AND generation = $2 AND position = $3 AND fence = $6
RETURNING position
