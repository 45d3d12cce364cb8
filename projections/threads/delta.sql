-- What the events in ($1, $2] say about threads: each request and each outcome that names one. Its text is nowhere.
SELECT
    e.tenant, d.thread, e.position, e.recorded_at, substr(e.type, length('embedding.') + 1) AS state,
    d.request_id, d.attempt, d.agent, d.model, d.task, d.provider, d.inputs,
    CASE e.type WHEN 'embedding.requested' THEN d.reserved_tokens WHEN 'embedding.abandoned' THEN 0 ELSE coalesce(d.tokens, 0) END AS tokens,
    coalesce(d.billed_tokens, 0) AS billed_tokens,
    -- Fields at their default are left out: null in `generated` is an unknown price, absent in `failed` is zero.
    CASE e.type WHEN 'embedding.generated' THEN d.nano_usd
                WHEN 'embedding.failed' THEN CASE WHEN e.data ? 'nano_usd' THEN d.nano_usd ELSE 0 END
                ELSE 0 END AS nano_usd,
    d.latency_ms, d.code
FROM {events} e
CROSS JOIN LATERAL jsonb_to_record(e.data) AS d (
    thread text, request_id text, attempt integer, agent text, model text, task text, provider text, inputs bigint,
    reserved_tokens bigint, tokens bigint, billed_tokens bigint, nano_usd bigint, latency_ms bigint, code text
)
WHERE e.position > $1 AND e.position <= $2
    AND e.type IN ('embedding.requested', 'embedding.generated', 'embedding.failed', 'embedding.abandoned')
    AND d.thread IS NOT NULL
