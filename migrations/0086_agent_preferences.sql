-- What each agent of each tenant states, a row an agent. `position` is that of its newest statement, `updated_by` who made it. `models` are
-- ranked, best first; `task_models` maps tasks to models. Money is in nano-dollars; null is no bound. Its metadata stay sealed in the log.
CREATE TABLE projections.agent_preferences_1 (
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
);
ALTER TABLE projections.agent_preferences_1 OWNER TO emberlog_app;
CREATE VIEW projections.agent_preferences AS SELECT * FROM projections.agent_preferences_1;
ALTER VIEW projections.agent_preferences OWNER TO emberlog_app;
