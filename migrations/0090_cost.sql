-- What was charged, by hour, day and month (UTC, by the log's `recorded_at`), kept for ever: one table, one row per bucket of `grain` that
-- begins at `bucket` and key. `provider` is '' where no provider was called.
--
-- `requests` were answered; those that failed are here where somebody is charged for them. `tokens` count what was answered or billed,
-- `billed_tokens` and `characters` (of prices per character) what was billed. Amounts are sums of the known ones: `unpriced` and
-- `provider_unpriced` count the outcomes whose amount is unknown. What replays cost us is in `provider_nano_usd`.
CREATE TABLE projections.cost_1 (
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
) WITH (fillfactor = 70);
ALTER TABLE projections.cost_1 OWNER TO emberlog_app;
CREATE VIEW projections.cost AS SELECT * FROM projections.cost_1;
ALTER VIEW projections.cost OWNER TO emberlog_app;
