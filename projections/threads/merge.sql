-- A row an event: there is nothing to bring together.
INSERT INTO {table} (
    tenant, thread, position, recorded_at, state, request_id, attempt, agent, model, task, provider, inputs, tokens, billed_tokens,
    nano_usd, latency_ms, code
)
SELECT
    tenant, thread, position, recorded_at, state, request_id, attempt, agent, model, task, provider, inputs, tokens, billed_tokens,
    nano_usd, latency_ms, code
FROM {delta} d
ON CONFLICT (tenant, thread, position) DO NOTHING
