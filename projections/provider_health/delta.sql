-- What the events in ($1, $2] say about endpoints. A request that was answered from the cache alone says nothing about the endpoint that it
-- names. An attempt names its model where that is not the one of the outcome.
WITH facts AS (
    SELECT e.position, e.recorded_at, e.type, d.*
    FROM {events} e
    CROSS JOIN LATERAL jsonb_to_record(e.data) AS d (
        endpoint text, model text, space text, inputs bigint, cached_inputs bigint, provider_ms bigint, attempts jsonb, failover jsonb,
        state text, health text, reason text, passed boolean, cosine_min integer
    )
    WHERE e.position > $1 AND e.position <= $2
        AND e.type IN (
            'embedding.generated', 'embedding.failed', 'breaker.state_changed', 'endpoint.health_changed', 'deployment.changed',
            'endpoint.attested'
        )
), told AS (
    SELECT
        endpoint, model, '' AS space, position, recorded_at, 'answered' AS what, provider_ms AS ms, NULL AS word, NULL AS reason,
        NULL::boolean AS passed, NULL::integer AS cosine_min
    FROM facts WHERE type = 'embedding.generated' AND inputs > coalesce(cached_inputs, 0)
    UNION ALL
    SELECT
        a.endpoint,
        coalesce(a.model, f.model),
        '', f.position, f.recorded_at, 'failed', a.ms, NULL, a.reason, NULL, NULL
    FROM facts f CROSS JOIN LATERAL jsonb_to_recordset(f.attempts) AS a (endpoint text, model text, reason text, ms bigint)
    WHERE f.type IN ('embedding.generated', 'embedding.failed') AND f.attempts IS NOT NULL
    UNION ALL
    SELECT failover->>'endpoint', failover->>'model', '', position, recorded_at, 'away', NULL, NULL, NULL, NULL, NULL
    FROM facts
    WHERE type IN ('embedding.generated', 'embedding.failed') AND failover->>'endpoint' <> endpoint
    UNION ALL
    SELECT
        endpoint, '', '', position, recorded_at,
        CASE type WHEN 'breaker.state_changed' THEN 'circuit' WHEN 'endpoint.health_changed' THEN 'health' ELSE 'deployment' END,
        NULL, coalesce(health, state), reason, NULL, NULL
    FROM facts WHERE type IN ('breaker.state_changed', 'endpoint.health_changed', 'deployment.changed')
    UNION ALL
    SELECT endpoint, model, space, position, recorded_at, 'attested', NULL, NULL, NULL, passed, cosine_min
    FROM facts WHERE type = 'endpoint.attested'
)
SELECT
    endpoint, model, space,
    count(*) FILTER (WHERE what = 'answered') AS answered,
    coalesce(sum(ms) FILTER (WHERE what = 'answered'), 0)::bigint AS latency_ms,
    count(*) FILTER (WHERE what = 'failed') AS failed_attempts,
    count(*) FILTER (WHERE what = 'failed' AND reason = 'timeout') AS timeouts,
    count(*) FILTER (WHERE what = 'failed' AND reason = 'connection') AS connection_errors,
    count(*) FILTER (WHERE what = 'failed' AND reason = 'server') AS server_errors,
    count(*) FILTER (WHERE what = 'failed' AND reason = 'rate_limited') AS rate_limited,
    count(*) FILTER (WHERE what = 'failed' AND reason = 'authentication') AS authentication_errors,
    count(*) FILTER (WHERE what = 'failed' AND reason = 'refused') AS refused,
    count(*) FILTER (WHERE what = 'failed' AND reason = 'bad_answer') AS bad_answers,
    count(*) FILTER (WHERE what = 'failed' AND reason = 'circuit_open') AS circuit_open,
    count(*) FILTER (WHERE what = 'failed' AND reason = 'drifted') AS drifted,
    count(*) FILTER (WHERE what = 'failed' AND reason = 'unattested') AS unattested,
    coalesce(sum(ms) FILTER (WHERE what = 'failed'), 0)::bigint AS failed_ms,
    count(*) FILTER (WHERE what = 'away') AS failovers,
    max(position) FILTER (WHERE what = 'answered') AS success_position,
    max(recorded_at) FILTER (WHERE what = 'answered') AS success_at,
    max(position) FILTER (WHERE what = 'failed') AS failure_position,
    max(recorded_at) FILTER (WHERE what = 'failed') AS failure_at,
    (array_agg(word ORDER BY position DESC) FILTER (WHERE what = 'circuit'))[1] AS circuit,
    max(position) FILTER (WHERE what = 'circuit') AS circuit_position,
    max(recorded_at) FILTER (WHERE what = 'circuit') AS circuit_at,
    (array_agg(reason ORDER BY position DESC) FILTER (WHERE what = 'circuit'))[1] AS circuit_reason,
    (array_agg(word ORDER BY position DESC) FILTER (WHERE what = 'health'))[1] AS health,
    max(position) FILTER (WHERE what = 'health') AS health_position,
    max(recorded_at) FILTER (WHERE what = 'health') AS health_at,
    (array_agg(reason ORDER BY position DESC) FILTER (WHERE what = 'health'))[1] AS health_reason,
    (array_agg(word ORDER BY position DESC) FILTER (WHERE what = 'deployment'))[1] AS deployment,
    max(position) FILTER (WHERE what = 'deployment') AS deployment_position,
    max(recorded_at) FILTER (WHERE what = 'deployment') AS deployment_at,
    (array_agg(passed ORDER BY position DESC) FILTER (WHERE what = 'attested'))[1] AS attested,
    max(position) FILTER (WHERE what = 'attested') AS attested_position,
    max(recorded_at) FILTER (WHERE what = 'attested') AS attested_at,
    (array_agg(cosine_min ORDER BY position DESC) FILTER (WHERE what = 'attested'))[1] AS cosine_min
FROM told
GROUP BY endpoint, model, space
