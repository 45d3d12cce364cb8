-- Locks the cursor for this transaction if it stands at $3 and fence $4 owns it.
SELECT true FROM projections.cursors WHERE name = $1 AND generation = $2 AND position = $3 AND fence = $4 FOR UPDATE
