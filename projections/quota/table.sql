-- One generation of the quota view; its columns are described in migrations/0063_quota_view.sql. Instances that died are looked up by name.
CREATE TABLE {table} (
    tenant text NOT NULL,
    day date NOT NULL,
    agent text NOT NULL,
    model text NOT NULL,
    instance text NOT NULL,
    used_tokens bigint NOT NULL,
    used_requests bigint NOT NULL,
    used_nano_usd bigint NOT NULL,
    unpriced bigint NOT NULL,
    PRIMARY KEY (tenant, day, agent, model, instance)
) WITH (fillfactor = 70);
CREATE INDEX ON {table} (instance)
