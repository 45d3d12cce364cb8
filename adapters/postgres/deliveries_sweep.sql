-- Forgets deliveries that were taken longer than $1 ago or died longer than $2 ago, and what is kept of webhooks that are not among $3: for
-- an hour nobody need know a new one, whose secret is there before its event.
WITH secrets AS (
    DELETE FROM emberlog.webhook_secrets WHERE webhook <> ALL ($3::text[]) AND created_at < clock_timestamp() - interval '1 hour'
), cursors AS (
    DELETE FROM emberlog.webhook_cursors c WHERE c.webhook <> ALL ($3::text[])
        AND NOT EXISTS (SELECT FROM emberlog.webhook_secrets s WHERE s.webhook = c.webhook AND s.created_at >= clock_timestamp() - interval '1 hour')
), swept AS (
    DELETE FROM emberlog.deliveries
    WHERE state = 'delivered' AND ended_at < clock_timestamp() - $1::interval
        OR state = 'dead' AND ended_at < clock_timestamp() - $2::interval
        OR webhook <> ALL ($3::text[]) AND created_at < clock_timestamp() - interval '1 hour'
    RETURNING 1
)
SELECT count(*) FROM swept
