-- Adds what a batch of events adds to the provider_health view. Sums, and by positions the newest of each kind of fact, so that batches may
-- come in any order. Every expression sees the row as it was before.
INSERT INTO {table} AS h (
    endpoint, model, space, answered, latency_ms, failed_attempts, timeouts, connection_errors, server_errors, rate_limited,
    authentication_errors, refused, bad_answers, circuit_open, drifted, unattested, failed_ms, failovers, success_position,
    success_at, failure_position, failure_at, circuit, circuit_position, circuit_at, circuit_reason, health, health_position,
    health_at, health_reason, deployment, deployment_position, deployment_at, attested, attested_position, attested_at,
    cosine_min
)
SELECT
    endpoint, model, space, answered, latency_ms, failed_attempts, timeouts, connection_errors, server_errors, rate_limited,
    authentication_errors, refused, bad_answers, circuit_open, drifted, unattested, failed_ms, failovers, success_position,
    success_at, failure_position, failure_at, circuit, circuit_position, circuit_at, circuit_reason, health, health_position,
    health_at, health_reason, deployment, deployment_position, deployment_at, attested, attested_position, attested_at,
    cosine_min
FROM {delta} d
ON CONFLICT (endpoint, model, space) DO UPDATE SET
    answered = h.answered + excluded.answered,
    latency_ms = h.latency_ms + excluded.latency_ms,
    failed_attempts = h.failed_attempts + excluded.failed_attempts,
    timeouts = h.timeouts + excluded.timeouts,
    connection_errors = h.connection_errors + excluded.connection_errors,
    server_errors = h.server_errors + excluded.server_errors,
    rate_limited = h.rate_limited + excluded.rate_limited,
    authentication_errors = h.authentication_errors + excluded.authentication_errors,
    refused = h.refused + excluded.refused,
    bad_answers = h.bad_answers + excluded.bad_answers,
    circuit_open = h.circuit_open + excluded.circuit_open,
    drifted = h.drifted + excluded.drifted,
    unattested = h.unattested + excluded.unattested,
    failed_ms = h.failed_ms + excluded.failed_ms,
    failovers = h.failovers + excluded.failovers,
    success_at = CASE WHEN excluded.success_position > coalesce(h.success_position, 0) THEN excluded.success_at ELSE h.success_at END,
    success_position = greatest(h.success_position, excluded.success_position),
    failure_at = CASE WHEN excluded.failure_position > coalesce(h.failure_position, 0) THEN excluded.failure_at ELSE h.failure_at END,
    failure_position = greatest(h.failure_position, excluded.failure_position),
    circuit = CASE WHEN excluded.circuit_position > coalesce(h.circuit_position, 0) THEN excluded.circuit ELSE h.circuit END,
    circuit_at = CASE WHEN excluded.circuit_position > coalesce(h.circuit_position, 0) THEN excluded.circuit_at ELSE h.circuit_at END,
    circuit_reason = CASE WHEN excluded.circuit_position > coalesce(h.circuit_position, 0) THEN excluded.circuit_reason ELSE h.circuit_reason END,
    circuit_position = greatest(h.circuit_position, excluded.circuit_position),
    health = CASE WHEN excluded.health_position > coalesce(h.health_position, 0) THEN excluded.health ELSE h.health END,
    health_at = CASE WHEN excluded.health_position > coalesce(h.health_position, 0) THEN excluded.health_at ELSE h.health_at END,
    health_reason = CASE WHEN excluded.health_position > coalesce(h.health_position, 0) THEN excluded.health_reason ELSE h.health_reason END,
    health_position = greatest(h.health_position, excluded.health_position),
    deployment = CASE WHEN excluded.deployment_position > coalesce(h.deployment_position, 0) THEN excluded.deployment ELSE h.deployment END,
    deployment_at = CASE WHEN excluded.deployment_position > coalesce(h.deployment_position, 0) THEN excluded.deployment_at ELSE h.deployment_at END,
    deployment_position = greatest(h.deployment_position, excluded.deployment_position),
    attested = CASE WHEN excluded.attested_position > coalesce(h.attested_position, 0) THEN excluded.attested ELSE h.attested END,
    attested_at = CASE WHEN excluded.attested_position > coalesce(h.attested_position, 0) THEN excluded.attested_at ELSE h.attested_at END,
    cosine_min = CASE WHEN excluded.attested_position > coalesce(h.attested_position, 0) THEN excluded.cosine_min ELSE h.cosine_min END,
    attested_position = greatest(h.attested_position, excluded.attested_position)
