-- Records that the event at $4 cannot be folded, because of $5, if fence $3 still owns the projection.
UPDATE projections.cursors SET error = $5, failed_position = $4, failed_at = clock_timestamp()
WHERE name = $1 AND generation = $2 AND fence = $3
