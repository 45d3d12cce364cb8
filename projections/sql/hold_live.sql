-- Locks the cursor of projection $1's live generation for this transaction, and says which it is and where it stands. No row while another
-- generation takes its place.
SELECT generation, position FROM projections.cursors WHERE name = $1 AND state = 'live' FOR UPDATE
