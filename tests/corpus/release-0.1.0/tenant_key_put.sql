WITH made AS (INSERT INTO emberlog.tenant_keys (tenant, wrapped) VALUES ($1, $2) ON CONFLICT DO NOTHING RETURNING wrapped)
SELECT wrapped FROM made UNION ALL SELECT wrapped FROM emberlog.tenant_keys WHERE tenant = $1 LIMIT 1
