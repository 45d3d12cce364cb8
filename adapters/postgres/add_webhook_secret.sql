-- Adds the secret $3 (sealed) of the webhook $1 of the tenant $2. The one before it expires after $4, older ones go.
WITH before AS (
    SELECT coalesce(max(number), 0) AS number FROM emberlog.webhook_secrets WHERE webhook = $1
), outdated AS (
    DELETE FROM emberlog.webhook_secrets s USING before b WHERE s.webhook = $1 AND s.number < b.number
), expiring AS (
    UPDATE emberlog.webhook_secrets s SET expires_at = least(s.expires_at, clock_timestamp() + $4::interval)
    FROM before b WHERE s.webhook = $1 AND s.number = b.number
)
INSERT INTO emberlog.webhook_secrets (webhook, number, tenant, sealed) SELECT $1, b.number + 1, $2, $3 FROM before b
