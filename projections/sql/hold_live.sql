-- Locks the cursor of projection $1's live generation $2 for this transaction, and says where it stands.
SELECT position FROM projections.cursors WHERE name = $1 AND generation = $2 AND state = 'live' FOR UPDATE
