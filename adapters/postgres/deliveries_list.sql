-- Deliveries of the webhooks $1, in the state $2 (null: any), of the event $3 (null: any), the newest first, at most $4.
SELECT webhook, position, tenant, type, event_id, state, tries, created_at, CASE WHEN state = 'pending' THEN next_at END AS next_at,
    ended_at, last_at, last_status, last_reason, last_ms
FROM emberlog.deliveries
WHERE webhook = ANY ($1) AND ($2::text IS NULL OR state = $2) AND ($3::uuid IS NULL OR event_id = $3)
ORDER BY position DESC, webhook
LIMIT $4
