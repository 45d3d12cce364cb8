-- Gives the projection back, if fence $3 still owns it.
UPDATE projections.cursors SET owner = NULL, lease_until = '-infinity' WHERE name = $1 AND generation = $2 AND fence = $3
