-- Alerts that were raised: of the tenants $1, of the kinds $2, open ($3 true) or resolved (false), with the ids $4 (null: all), the newest
-- first, at most $5.
SELECT
    alert, tenant, kind, severity, summary, labels, episode, extract(epoch FROM raised_at)::float8 AS raised_at,
    used, limit_value AS "limit", extract(epoch FROM acknowledged_at)::float8 AS acknowledged_at, acknowledged_by,
    silenced_until::float8 AS silenced_until, silenced_by, extract(epoch FROM resolved_at)::float8 AS resolved_at,
    resolved_reason AS reason, resolved_by
FROM projections.alerts
WHERE raised_position IS NOT NULL
    AND ($1::text[] IS NULL OR tenant = ANY ($1))
    AND ($2::text[] IS NULL OR kind = ANY ($2))
    AND ($3::boolean IS NULL OR (resolved_position IS NULL) = $3)
    AND ($4::text[] IS NULL OR alert = ANY ($4))
ORDER BY raised_position DESC
LIMIT $5
