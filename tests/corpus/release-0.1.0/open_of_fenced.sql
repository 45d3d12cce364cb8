-- The `requested` events of attempts that the view still holds for open and whose instance may write no more: their outcome is known to
-- be missing once the view has passed the instance's last event, and asking earlier only costs a duplicate.
SELECT e.tenant, e.data::text::bytea AS data
FROM projections.requests r
JOIN emberlog.instances i ON i.id::text = r.instance
JOIN emberlog.events e ON e.position = r.requested_position
WHERE r.state = 'open' AND i.fenced_at IS NOT NULL
ORDER BY e.position
LIMIT $1
