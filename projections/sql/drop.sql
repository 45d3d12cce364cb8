-- Forgets generation $2 of projection $1 if it is in state $3, and nobody owns it.
DELETE FROM projections.cursors
WHERE name = $1 AND generation = $2 AND state = $3 AND (owner IS NULL OR lease_until < clock_timestamp())
RETURNING generation
