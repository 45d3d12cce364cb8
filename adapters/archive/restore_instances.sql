-- Whoever held the attempts is not here: known as fenced, their open ones are given up as those of any dead instance.
INSERT INTO emberlog.instances (id, description, lease_until, fenced_at, fenced_head)
SELECT DISTINCT (e.data->>'instance')::uuid, 'imported', clock_timestamp(), clock_timestamp(), h.position
FROM emberlog.events e CROSS JOIN emberlog.head() h
WHERE e.type = 'embedding.requested'
    AND e.data->>'instance' ~ '^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$'
ON CONFLICT DO NOTHING
