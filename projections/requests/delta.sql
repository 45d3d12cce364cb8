-- What the events in ($1, $2] say about each attempt: its last `requested` and the last outcome behind that. A request id used again
-- after the idempotency window starts anew.
WITH facts AS (
    SELECT e.position, e.recorded_at, e.tenant, e.data->>'request_id' AS request_id, (e.data->>'attempt')::integer AS attempt, e.type, e.data
    FROM {events} e
    WHERE e.position > $1 AND e.position <= $2
        AND e.type IN ('embedding.requested', 'embedding.generated', 'embedding.failed', 'embedding.abandoned')
), asked AS (
    SELECT DISTINCT ON (tenant, request_id, attempt) * FROM facts
    WHERE type = 'embedding.requested' ORDER BY tenant, request_id, attempt, position DESC
), ended AS (
    SELECT DISTINCT ON (tenant, request_id, attempt) * FROM facts
    WHERE type <> 'embedding.requested' ORDER BY tenant, request_id, attempt, position DESC
)
SELECT
    tenant, request_id, attempt,
    CASE o.type WHEN 'embedding.generated' THEN 'generated' WHEN 'embedding.failed' THEN 'failed'
                WHEN 'embedding.abandoned' THEN 'abandoned' ELSE 'open' END AS state,
    coalesce(o.data->>'agent', a.data->>'agent') AS agent,
    coalesce(o.data->>'model', a.data->>'model') AS model,
    o.data->>'provider' AS provider,
    a.data->>'instance' AS instance,
    o.data->>'code' AS code,
    a.position AS requested_position, a.recorded_at AS requested_at, o.position AS outcome_position, o.recorded_at AS outcome_at
FROM asked a
FULL JOIN (
    SELECT ended.* FROM ended LEFT JOIN asked USING (tenant, request_id, attempt)
    WHERE asked.position IS NULL OR ended.position > asked.position
) o USING (tenant, request_id, attempt)
