-- Folds the events in ($1, $2] into the requests view. Of an attempt's events in the batch only the last `requested` and the last
-- outcome behind it count: a request id used again after the idempotency window starts anew.
WITH facts AS (
    SELECT position, recorded_at, tenant, data->>'request_id' AS request_id, (data->>'attempt')::integer AS attempt, type, data
    FROM emberlog.events
    WHERE position > $1 AND position <= $2
        AND type IN ('embedding.requested', 'embedding.generated', 'embedding.failed', 'embedding.abandoned')
), asked AS (
    SELECT DISTINCT ON (tenant, request_id, attempt) * FROM facts
    WHERE type = 'embedding.requested' ORDER BY tenant, request_id, attempt, position DESC
), ended AS (
    SELECT DISTINCT ON (tenant, request_id, attempt) * FROM facts
    WHERE type <> 'embedding.requested' ORDER BY tenant, request_id, attempt, position DESC
)
INSERT INTO projections.requests AS r (
    tenant, request_id, attempt, state, agent, model, provider, instance, code,
    requested_position, requested_at, outcome_position, outcome_at
)
SELECT
    tenant, request_id, attempt,
    CASE e.type WHEN 'embedding.generated' THEN 'generated' WHEN 'embedding.failed' THEN 'failed'
                WHEN 'embedding.abandoned' THEN 'abandoned' ELSE 'open' END,
    coalesce(e.data->>'agent', a.data->>'agent'),
    coalesce(e.data->>'model', a.data->>'model'),
    e.data->>'provider',
    a.data->>'instance',
    e.data->>'code',
    a.position, a.recorded_at, e.position, e.recorded_at
FROM asked a
FULL JOIN (
    SELECT ended.* FROM ended LEFT JOIN asked USING (tenant, request_id, attempt)
    WHERE asked.position IS NULL OR ended.position > asked.position
) e USING (tenant, request_id, attempt)
ON CONFLICT (tenant, request_id, attempt) DO UPDATE SET
    state = excluded.state,
    agent = excluded.agent,
    model = excluded.model,
    provider = excluded.provider,
    -- An outcome alone leaves what its `requested` said; a new `requested` replaces it.
    instance = CASE WHEN excluded.requested_position IS NULL THEN r.instance ELSE excluded.instance END,
    code = excluded.code,
    requested_position = CASE WHEN excluded.requested_position IS NULL THEN r.requested_position ELSE excluded.requested_position END,
    requested_at = CASE WHEN excluded.requested_position IS NULL THEN r.requested_at ELSE excluded.requested_at END,
    outcome_position = excluded.outcome_position,
    outcome_at = excluded.outcome_at
