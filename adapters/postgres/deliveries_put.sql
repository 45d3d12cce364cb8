-- Puts down deliveries (columns $1 to $5) and moves the cursors of the webhooks $6 to $7, never back.
WITH moved AS (
    INSERT INTO emberlog.webhook_cursors AS c (webhook, position) SELECT * FROM unnest($6::text[], $7::bigint[])
    ON CONFLICT (webhook) DO UPDATE SET position = greatest(c.position, excluded.position)
)
INSERT INTO emberlog.deliveries (webhook, position, tenant, type, event_id)
SELECT * FROM unnest($1::text[], $2::bigint[], $3::text[], $4::text[], $5::uuid[])
ON CONFLICT DO NOTHING
