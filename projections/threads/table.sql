-- One generation of the threads view; its columns are described in migrations/0095_threads.sql. Pruning looks for old rows.
CREATE TABLE {table} (
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
CREATE INDEX ON {table} USING brin (recorded_at)
