-- The generation of projection $1 that is being built, if there is one, and whether nobody is at it; locked for this transaction. Fails at
-- once where it is locked: somebody is at work.
SELECT generation, position, fence, fold, owner IS NULL OR lease_until < clock_timestamp() AS free
FROM projections.cursors WHERE name = $1 AND state = 'building' FOR UPDATE NOWAIT
