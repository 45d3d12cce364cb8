-- What the events in ($1, $2] say about each model of each tenant: the last statement. Fields at their default are left out of the JSON.
WITH said AS (
    SELECT e.tenant, e.data ->> 'model' AS model_id, e.position, e.recorded_at, e.type = 'tenant_model.removed' AS removed, e.data
    FROM {events} e
    WHERE e.position > $1 AND e.position <= $2 AND e.type IN ('tenant_model.configured', 'tenant_model.removed')
)
SELECT DISTINCT ON (tenant, model_id)
    tenant, model_id, position,
    min(recorded_at) OVER models AS created_at, max(recorded_at) OVER models AS updated_at, data ->> 'actor' AS updated_by,
    CASE WHEN removed THEN 'removed' ELSE coalesce(data ->> 'state', 'enabled') END AS state,
    NOT removed AND coalesce(data ->> 'state', 'enabled') = 'enabled' AS is_enabled,
    CASE WHEN NOT removed AND (data ->> 'default')::boolean THEN position END AS default_position,
    CASE WHEN NOT removed THEN coalesce((data ->> 'priority')::bigint, 100) END AS priority,
    CASE WHEN NOT removed THEN coalesce(data -> 'fallback_models', '[]') END AS fallback_models,
    CASE WHEN NOT removed THEN coalesce(data -> 'custom_settings', '{}') END AS custom_settings
FROM said
WINDOW models AS (PARTITION BY tenant, model_id)
ORDER BY tenant, model_id, position DESC
