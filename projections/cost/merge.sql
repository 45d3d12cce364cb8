-- Adds what a batch of events adds to the cost view. Sums only, so that batches may come in any order.
INSERT INTO {table} AS c (
    grain, bucket, tenant, agent, model, provider,
    requests, tokens, billed_tokens, characters, nano_usd, unpriced, provider_nano_usd, provider_unpriced
)
SELECT
    grain, bucket, tenant, agent, model, provider,
    requests, tokens, billed_tokens, characters, nano_usd, unpriced, provider_nano_usd, provider_unpriced
FROM {delta} d
ON CONFLICT (grain, bucket, tenant, agent, model, provider) DO UPDATE SET
    requests = c.requests + excluded.requests,
    tokens = c.tokens + excluded.tokens,
    billed_tokens = c.billed_tokens + excluded.billed_tokens,
    characters = c.characters + excluded.characters,
    nano_usd = c.nano_usd + excluded.nano_usd,
    unpriced = c.unpriced + excluded.unpriced,
    provider_nano_usd = c.provider_nano_usd + excluded.provider_nano_usd,
    provider_unpriced = c.provider_unpriced + excluded.provider_unpriced
