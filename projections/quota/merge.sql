-- Adds what a batch says to the quota view.
INSERT INTO {table} AS q (tenant, day, agent, model, instance, used_tokens, used_requests, used_nano_usd, unpriced)
SELECT tenant, day, agent, model, instance, used_tokens, used_requests, used_nano_usd, unpriced
FROM {delta} d
ON CONFLICT (tenant, day, agent, model, instance) DO UPDATE SET
    used_tokens = q.used_tokens + excluded.used_tokens,
    used_requests = q.used_requests + excluded.used_requests,
    used_nano_usd = q.used_nano_usd + excluded.used_nano_usd,
    unpriced = q.unpriced + excluded.unpriced
