-- Brings what a batch says about each agent into the agent_preferences view. By positions and not by arrival: the newest statement counts.
INSERT INTO {table} AS t (
    tenant, agent_id, position, created_at, updated_at, updated_by, name, agent_version, selection_strategy, models, task_models,
    required_dimensions, max_cost_per_request_nano_usd, monthly_budget_nano_usd, max_latency_ms, capabilities
)
SELECT
    tenant, agent_id, position, created_at, updated_at, updated_by, name, agent_version, selection_strategy, models, task_models,
    required_dimensions, max_cost_per_request_nano_usd, monthly_budget_nano_usd, max_latency_ms, capabilities
FROM {delta} d
ON CONFLICT (tenant, agent_id) DO UPDATE SET
    created_at = least(t.created_at, excluded.created_at),
    updated_at = greatest(t.updated_at, excluded.updated_at),
    updated_by = CASE WHEN excluded.position > t.position THEN excluded.updated_by ELSE t.updated_by END,
    name = CASE WHEN excluded.position > t.position THEN excluded.name ELSE t.name END,
    agent_version = CASE WHEN excluded.position > t.position THEN excluded.agent_version ELSE t.agent_version END,
    selection_strategy = CASE WHEN excluded.position > t.position THEN excluded.selection_strategy ELSE t.selection_strategy END,
    models = CASE WHEN excluded.position > t.position THEN excluded.models ELSE t.models END,
    task_models = CASE WHEN excluded.position > t.position THEN excluded.task_models ELSE t.task_models END,
    required_dimensions = CASE WHEN excluded.position > t.position THEN excluded.required_dimensions ELSE t.required_dimensions END,
    max_cost_per_request_nano_usd = CASE WHEN excluded.position > t.position THEN excluded.max_cost_per_request_nano_usd ELSE t.max_cost_per_request_nano_usd END,
    monthly_budget_nano_usd = CASE WHEN excluded.position > t.position THEN excluded.monthly_budget_nano_usd ELSE t.monthly_budget_nano_usd END,
    max_latency_ms = CASE WHEN excluded.position > t.position THEN excluded.max_latency_ms ELSE t.max_latency_ms END,
    capabilities = CASE WHEN excluded.position > t.position THEN excluded.capabilities ELSE t.capabilities END,
    position = greatest(t.position, excluded.position)
