-- One generation of the cost view; its columns are described in migrations/0090_cost.sql.
CREATE TABLE {table} (
    grain text NOT NULL CHECK (grain IN ('hour', 'day', 'month')),
    bucket timestamptz NOT NULL,
    tenant text NOT NULL,
    agent text NOT NULL,
    model text NOT NULL,
    provider text NOT NULL,
    requests bigint NOT NULL,
    tokens bigint NOT NULL,
    billed_tokens bigint NOT NULL,
    characters bigint NOT NULL,
    nano_usd bigint NOT NULL,
    unpriced bigint NOT NULL,
    provider_nano_usd bigint NOT NULL,
    provider_unpriced bigint NOT NULL,
    PRIMARY KEY (grain, bucket, tenant, agent, model, provider)
) WITH (fillfactor = 70)
