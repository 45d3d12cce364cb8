-- What the events in ($1, $2] say that alerts may be about: by tenant, which prices were unknown, who was passed over for another, and
-- whose configuration changed (`decided`: the position of the last decision).
SELECT
    e.tenant,
    CASE WHEN e.type = 'embedding.generated' THEN d.model END AS model,
    CASE WHEN e.type = 'embedding.generated' THEN d.provider END AS provider,
    CASE WHEN e.type = 'embedding.generated' THEN d.failover->>'model' END AS failover_model,
    CASE WHEN e.type = 'embedding.generated' THEN d.failover->>'endpoint' END AS failover_endpoint,
    CASE WHEN e.type = 'embedding.generated' THEN d.failover->>'reason' END AS failover_reason,
    coalesce(max(e.position) FILTER (WHERE e.type = 'embedding.generated' AND d.nano_usd IS NULL), 0) AS unpriced,
    coalesce(max(e.position) FILTER (WHERE e.type = 'embedding.generated' AND d.nano_usd IS NOT NULL), 0) AS priced,
    coalesce(max(e.position) FILTER (WHERE e.version IS NOT NULL), 0) AS decided
FROM emberlog.events e
CROSS JOIN LATERAL jsonb_to_record(e.data) AS d (model text, provider text, nano_usd bigint, failover jsonb)
WHERE e.position > $1 AND e.position <= $2
    AND e.type IN (
        'embedding.generated', 'embedding.failed', 'quota.set', 'quota.removed', 'agent.registered', 'tenant.configured',
        'tenant_model.configured', 'tenant_model.removed', 'model.state_changed'
    )
GROUP BY 1, 2, 3, 4, 5, 6
