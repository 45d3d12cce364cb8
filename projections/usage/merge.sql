-- Adds what a batch of events adds to the usage view. Sums and maxima only, so that batches may come in any order.
INSERT INTO {table} AS u (
    grain, bucket, tenant, agent, model, provider,
    requests, failed, cancelled, late, abandoned, reembedded, inputs, cached_inputs, tokens, billed_tokens,
    nano_usd, unpriced, provider_nano_usd, provider_unpriced, latency_ms_sum, latency_ms_max, latency_bins
)
SELECT
    grain, bucket, tenant, agent, model, provider,
    requests, failed, cancelled, late, abandoned, reembedded, inputs, cached_inputs, tokens, billed_tokens,
    nano_usd, unpriced, provider_nano_usd, provider_unpriced, latency_ms_sum, latency_ms_max, latency_bins
FROM {delta} d
ON CONFLICT (grain, bucket, tenant, agent, model, provider) DO UPDATE SET
    requests = u.requests + excluded.requests,
    failed = u.failed + excluded.failed,
    cancelled = u.cancelled + excluded.cancelled,
    late = u.late + excluded.late,
    abandoned = u.abandoned + excluded.abandoned,
    reembedded = u.reembedded + excluded.reembedded,
    inputs = u.inputs + excluded.inputs,
    cached_inputs = u.cached_inputs + excluded.cached_inputs,
    tokens = u.tokens + excluded.tokens,
    billed_tokens = u.billed_tokens + excluded.billed_tokens,
    nano_usd = u.nano_usd + excluded.nano_usd,
    unpriced = u.unpriced + excluded.unpriced,
    provider_nano_usd = u.provider_nano_usd + excluded.provider_nano_usd,
    provider_unpriced = u.provider_unpriced + excluded.provider_unpriced,
    latency_ms_sum = u.latency_ms_sum + excluded.latency_ms_sum,
    latency_ms_max = greatest(u.latency_ms_max, excluded.latency_ms_max),
    latency_bins = projections.add_latency_bins(u.latency_bins, excluded.latency_bins)
