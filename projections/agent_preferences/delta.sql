-- What the events in ($1, $2] say about each agent: its last statement. Fields at their default are left out of the JSON.
SELECT DISTINCT ON (e.tenant, e.data ->> 'agent')
    e.tenant, e.data ->> 'agent' AS agent_id, e.position,
    min(e.recorded_at) OVER agents AS created_at, max(e.recorded_at) OVER agents AS updated_at, e.data ->> 'actor' AS updated_by,
    e.data ->> 'name' AS name, e.data ->> 'version' AS agent_version,
    coalesce(e.data #>> '{preferences,strategy}', 'tenant_default') AS selection_strategy,
    coalesce(e.data #> '{preferences,models}', '[]') AS models,
    coalesce(e.data #> '{preferences,task_models}', '{}') AS task_models,
    (e.data #>> '{preferences,required_dimensions}')::bigint AS required_dimensions,
    (e.data #>> '{preferences,max_cost_per_request_nano_usd}')::bigint AS max_cost_per_request_nano_usd,
    (e.data #>> '{preferences,monthly_budget_nano_usd}')::bigint AS monthly_budget_nano_usd,
    (e.data #>> '{preferences,max_latency_ms}')::bigint AS max_latency_ms,
    coalesce(e.data -> 'capabilities', '[]') AS capabilities
FROM {events} e
WHERE e.position > $1 AND e.position <= $2 AND e.type = 'agent.registered'
WINDOW agents AS (PARTITION BY e.tenant, e.data ->> 'agent')
ORDER BY e.tenant, e.data ->> 'agent', e.position DESC
