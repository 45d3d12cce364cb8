-- The requests of each thread and their outcomes, a row an event, for 30 days. `state` is `requested`, `generated`, `failed` or
-- `abandoned`; `tokens` of a request are those it reserved; `nano_usd` null is an unknown price.
CREATE TABLE projections.threads_1 (
    tenant text NOT NULL,
    thread text NOT NULL,
    position bigint NOT NULL,
    recorded_at timestamptz NOT NULL,
    state text NOT NULL,
    request_id text NOT NULL,
    attempt integer NOT NULL,
    agent text NOT NULL,
    model text NOT NULL,
    task text,
    provider text,
    inputs bigint NOT NULL,
    tokens bigint NOT NULL,
    billed_tokens bigint NOT NULL,
    nano_usd bigint,
    latency_ms bigint,
    code text,
    PRIMARY KEY (tenant, thread, position)
);
CREATE INDEX threads_1_times ON projections.threads_1 USING brin (recorded_at);
ALTER TABLE projections.threads_1 OWNER TO emberlog_app;
CREATE VIEW projections.threads AS SELECT * FROM projections.threads_1;
ALTER VIEW projections.threads OWNER TO emberlog_app;
