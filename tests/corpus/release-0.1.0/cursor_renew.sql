-- Extends the lease of the owner with fence $3 by $4 from now.
UPDATE projections.cursors SET lease_until = clock_timestamp() + $4::interval
WHERE name = $1 AND generation = $2 AND fence = $3
RETURNING fence
