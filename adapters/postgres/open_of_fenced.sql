-- The `requested` events of attempts that the view still holds for open and whose instance may write no more: their outcome is known to
-- be missing once the view has passed the instance's last event, and asking earlier only costs a duplicate.
-- Schema versions above $2 are not this build's to read.
SELECT e.tenant, e.data::text::bytea AS data, e.schema_version
FROM projections.requests r
JOIN emberlog.instances i ON i.id::text = r.instance
JOIN emberlog.events e ON e.position = r.requested_position
WHERE r.state = 'open' AND i.fenced_at IS NOT NULL AND e.schema_version <= $2
ORDER BY e.position
LIMIT $1
