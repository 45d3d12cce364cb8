-- Brings what a batch says about each model into the tenant_models view. By positions and not by arrival: the newest statement counts.
INSERT INTO {table} AS t (
    tenant, model_id, position, created_at, updated_at, updated_by, state, is_enabled, default_position, priority, fallback_models,
    custom_settings
)
SELECT
    tenant, model_id, position, created_at, updated_at, updated_by, state, is_enabled, default_position, priority, fallback_models,
    custom_settings
FROM {delta} d
ON CONFLICT (tenant, model_id) DO UPDATE SET
    created_at = least(t.created_at, excluded.created_at),
    updated_at = greatest(t.updated_at, excluded.updated_at),
    updated_by = CASE WHEN excluded.position > t.position THEN excluded.updated_by ELSE t.updated_by END,
    state = CASE WHEN excluded.position > t.position THEN excluded.state ELSE t.state END,
    is_enabled = CASE WHEN excluded.position > t.position THEN excluded.is_enabled ELSE t.is_enabled END,
    default_position = CASE WHEN excluded.position > t.position THEN excluded.default_position ELSE t.default_position END,
    priority = CASE WHEN excluded.position > t.position THEN excluded.priority ELSE t.priority END,
    fallback_models = CASE WHEN excluded.position > t.position THEN excluded.fallback_models ELSE t.fallback_models END,
    custom_settings = CASE WHEN excluded.position > t.position THEN excluded.custom_settings ELSE t.custom_settings END,
    position = greatest(t.position, excluded.position)
