-- Forgets what is kept of the webhooks of the tenant $1: it was shredded.
WITH forgotten AS (
    DELETE FROM emberlog.webhook_secrets WHERE tenant = $1 RETURNING webhook
), cursors AS (
    DELETE FROM emberlog.webhook_cursors c USING forgotten f WHERE c.webhook = f.webhook
)
DELETE FROM emberlog.deliveries d USING forgotten f WHERE d.webhook = f.webhook
