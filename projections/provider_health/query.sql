-- Endpoints and their models, by name: of the endpoint $1, of the model $2 (null: all), at most $3. An endpoint of which nothing but its
-- own state is known has one row, without a model.
WITH pairs AS (
    SELECT DISTINCT endpoint, model FROM projections.provider_health h
    WHERE ($1::text IS NULL OR endpoint = $1) AND ($2::text IS NULL OR model = $2)
        AND (model <> '' OR NOT EXISTS (SELECT FROM projections.provider_health m WHERE m.endpoint = h.endpoint AND m.model <> ''))
    ORDER BY endpoint, model LIMIT $3
)
SELECT
    p.endpoint, p.model,
    coalesce(r.answered, 0) AS answered, coalesce(r.latency_ms, 0) AS latency_ms,
    coalesce(r.failed_attempts, 0) AS failed_attempts, coalesce(r.failed_ms, 0) AS failed_ms, coalesce(r.failovers, 0) AS failovers,
    coalesce(r.timeouts, 0) AS failed_by_timeout,
    coalesce(r.connection_errors, 0) AS failed_by_connection,
    coalesce(r.server_errors, 0) AS failed_by_server,
    coalesce(r.rate_limited, 0) AS failed_by_rate_limited,
    coalesce(r.authentication_errors, 0) AS failed_by_authentication,
    coalesce(r.refused, 0) AS failed_by_refused,
    coalesce(r.bad_answers, 0) AS failed_by_bad_answer,
    coalesce(r.circuit_open, 0) AS failed_by_circuit_open,
    coalesce(r.drifted, 0) AS failed_by_drifted,
    coalesce(r.unattested, 0) AS failed_by_unattested,
    coalesce(
        r.failed_attempts - r.timeouts - r.connection_errors - r.server_errors - r.rate_limited - r.authentication_errors - r.refused
            - r.bad_answers - r.circuit_open - r.drifted - r.unattested, 0
    ) AS failed_by_other,
    r.success_at AS last_success_at, r.failure_at AS last_failure_at,
    e.circuit, e.circuit_at, e.circuit_reason, e.health, e.health_at, e.health_reason, e.deployment,
    coalesce(
        (
            SELECT json_agg(
                json_build_object('space', a.space, 'passed', a.attested, 'at', a.attested_at, 'cosine_min', a.cosine_min / 1000000.0::float8)
                ORDER BY a.space
            )
            FROM projections.provider_health a
            WHERE a.endpoint = p.endpoint AND a.model = p.model AND a.attested_position IS NOT NULL
        ), '[]'
    ) AS attestations
FROM pairs p
LEFT JOIN projections.provider_health r ON r.endpoint = p.endpoint AND r.model = p.model AND r.space = '' AND p.model <> ''
LEFT JOIN projections.provider_health e ON e.endpoint = p.endpoint AND e.model = '' AND e.space = ''
ORDER BY p.endpoint, p.model
