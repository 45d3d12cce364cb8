-- One generation of the agent_preferences view; its columns are described in migrations/0086_agent_preferences.sql.
CREATE TABLE {table} (
    tenant text NOT NULL,
    agent_id text NOT NULL,
    position bigint NOT NULL,
    created_at timestamptz NOT NULL,
    updated_at timestamptz NOT NULL,
    updated_by text,
    name text,
    agent_version text,
    selection_strategy text NOT NULL,
    models jsonb NOT NULL,
    task_models jsonb NOT NULL,
    required_dimensions bigint,
    max_cost_per_request_nano_usd bigint,
    monthly_budget_nano_usd bigint,
    max_latency_ms bigint,
    capabilities jsonb NOT NULL,
    PRIMARY KEY (tenant, agent_id)
)
