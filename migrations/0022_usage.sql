-- Usage by minute, hour and day (UTC, by the log's `recorded_at`): one table, one row per bucket of `grain` seconds and key, so
-- that one statement keeps all three and one digest covers the view. `provider` is '' where no provider was called.
--
-- `requests` were answered; `failed` (of which `cancelled` and `late`) and `abandoned` were not. `inputs` and `tokens` count what
-- was answered or billed, `billed_tokens` and `nano_usd` every bill. Amounts are sums of the known ones: `unpriced` and
-- `provider_unpriced` count the outcomes whose amount is unknown. `reembedded` are replays embedded again at our cost.
-- Latencies are those of answered requests; bin n counts those up to the n-th bound of `projections/usage/latency.py`.
CREATE TABLE projections.usage (
    grain integer NOT NULL CHECK (grain IN (60, 3600, 86400)),
    bucket timestamptz NOT NULL,
    tenant text NOT NULL,
    agent text NOT NULL,
    model text NOT NULL,
    provider text NOT NULL,
    requests bigint NOT NULL,
    failed bigint NOT NULL,
    cancelled bigint NOT NULL,
    late bigint NOT NULL,
    abandoned bigint NOT NULL,
    reembedded bigint NOT NULL,
    inputs bigint NOT NULL,
    cached_inputs bigint NOT NULL,
    tokens bigint NOT NULL,
    billed_tokens bigint NOT NULL,
    nano_usd bigint NOT NULL,
    unpriced bigint NOT NULL,
    provider_nano_usd bigint NOT NULL,
    provider_unpriced bigint NOT NULL,
    latency_ms_sum bigint NOT NULL,
    latency_ms_max bigint NOT NULL,
    latency_bins bigint[] NOT NULL CHECK (cardinality(latency_bins) = 20),
    PRIMARY KEY (grain, bucket, tenant, agent, model, provider)
) WITH (fillfactor = 70);
