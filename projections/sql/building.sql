-- The generation of projection $1 that is being built, if there is one, and whether nobody is at it; locked for this transaction. A row that is
-- locked has an owner at work, and is left out.
SELECT generation, position, fence, fold, owner IS NULL OR lease_until < clock_timestamp() AS free
FROM projections.cursors WHERE name = $1 AND state = 'building' FOR UPDATE SKIP LOCKED
