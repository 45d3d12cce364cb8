-- Instances fenced at a head of $1 or later, whose last event the quota view has folded, and that are not closed; at most $2. With each the
-- view's position: one fenced later than now was fenced at a head no smaller.
SELECT c.position, i.id::text AS instance
FROM projections.cursors c
LEFT JOIN emberlog.instances i
    ON i.fenced_at IS NOT NULL AND i.fenced_head >= $1 AND i.fenced_head <= c.position
    AND NOT EXISTS (SELECT FROM quota.instances q WHERE q.id = i.id::text AND q.closed)
WHERE c.name = 'quota' AND c.state = 'live'
ORDER BY i.fenced_head
LIMIT $2
