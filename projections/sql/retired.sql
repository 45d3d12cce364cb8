-- The generation that projection $1 can go back to, the one retired last; locked for this transaction.
SELECT generation, fold FROM projections.cursors
WHERE name = $1 AND state = 'retired' ORDER BY state_since DESC, generation DESC LIMIT 1 FOR UPDATE
