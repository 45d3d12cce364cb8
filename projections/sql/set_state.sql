-- Puts generation $2 of projection $1, which $4 stands for the folding of, into state $3, owned by nobody: who owned it is ousted.
UPDATE projections.cursors
SET state = $3, fold = $4, state_since = clock_timestamp(), owner = NULL, fence = fence + 1, lease_until = '-infinity'
WHERE name = $1 AND generation = $2
