-- What the events in ($1, $2] say about each attempt: its last `requested` and the last outcome behind that. A request id used again
-- after the idempotency window starts anew.
WITH facts AS (
    SELECT e.position, e.recorded_at, e.tenant, e.type = 'embedding.requested' AS asked,
        CASE e.type WHEN 'embedding.generated' THEN 'generated' WHEN 'embedding.failed' THEN 'failed'
                    WHEN 'embedding.abandoned' THEN 'abandoned' END AS ended,
        d.request_id, d.attempt, d.agent, d.model, d.provider, d.instance, d.code
    FROM {events} e
    CROSS JOIN LATERAL jsonb_to_record(e.data) AS d (
        request_id text, attempt integer, agent text, model text, provider text, instance text, code text
    )
    WHERE e.position > $1 AND e.position <= $2
        AND e.type IN ('embedding.requested', 'embedding.generated', 'embedding.failed', 'embedding.abandoned')
), numbered AS (
    SELECT *, max(position) FILTER (WHERE asked) OVER attempts AS last_asked, max(position) FILTER (WHERE NOT asked) OVER attempts AS last_ended
    FROM facts WINDOW attempts AS (PARTITION BY tenant, request_id, attempt)
)
-- At most one row of each kind is left of an attempt, so that a maximum is that row's value.
SELECT
    tenant, request_id, attempt,
    coalesce(max(ended), 'open') AS state,
    coalesce(max(agent) FILTER (WHERE NOT asked), max(agent)) AS agent,
    coalesce(max(model) FILTER (WHERE NOT asked), max(model)) AS model,
    max(provider) FILTER (WHERE NOT asked) AS provider,
    max(instance) FILTER (WHERE asked) AS instance,
    max(code) FILTER (WHERE NOT asked) AS code,
    max(position) FILTER (WHERE asked) AS requested_position,
    max(recorded_at) FILTER (WHERE asked) AS requested_at,
    max(position) FILTER (WHERE NOT asked) AS outcome_position,
    max(recorded_at) FILTER (WHERE NOT asked) AS outcome_at
FROM numbered
WHERE position = last_asked OR position = last_ended AND (last_asked IS NULL OR last_ended > last_asked)
GROUP BY tenant, request_id, attempt
