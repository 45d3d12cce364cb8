-- What the events in ($1, $2] add to the usage view: one pass over the log by minute, hours and days from the minutes.
WITH outcomes AS (
    SELECT
        date_bin('1 minute', e.recorded_at, 'epoch') AS minute,
        e.tenant, e.type,
        d.agent, d.model, coalesce(d.provider, '') AS provider,
        e.type = 'embedding.generated' AS answered,
        d.code, d.inputs,
        coalesce(d.cached_inputs, 0) AS cached_inputs,
        coalesce(d.tokens, 0) AS tokens,
        coalesce(d.billed_tokens, 0) AS billed_tokens,
        d.nano_usd, d.provider_nano_usd,
        -- Defaults are left out of the JSON. An absent amount is unknown in `generated` and `reembedded`, and zero in `failed`,
        -- where null says unknown; a replay's texts and an abandoned attempt cost the tenant nothing.
        CASE e.type WHEN 'embedding.generated' THEN d.nano_usd IS NULL
                    WHEN 'embedding.failed' THEN e.data->'nano_usd' = 'null' ELSE false END AS unpriced,
        CASE e.type WHEN 'embedding.abandoned' THEN false
                    WHEN 'embedding.failed' THEN e.data->'provider_nano_usd' = 'null'
                    ELSE d.provider_nano_usd IS NULL END AS provider_unpriced,
        CASE e.type WHEN 'embedding.generated' THEN d.latency_ms END AS latency_ms
    FROM {events} e
    -- One pass over the document: a look-up by name for each field costs a quarter more.
    CROSS JOIN LATERAL jsonb_to_record(e.data) AS d (
        agent text, model text, provider text, code text, inputs bigint, cached_inputs bigint, tokens bigint, billed_tokens bigint,
        nano_usd bigint, provider_nano_usd bigint, latency_ms bigint
    )
    WHERE e.position > $1 AND e.position <= $2
        AND e.type IN ('embedding.generated', 'embedding.failed', 'embedding.abandoned', 'embedding.reembedded')
), binned AS (
    SELECT *,
        -- Bin n holds latencies up to the n-th bound; `width_bucket` counts the bounds that are reached.
        1 + width_bucket(latency_ms - 1, ARRAY[1, 2, 5, 10, 20, 35, 50, 75, 100, 150, 200, 300, 500, 750, 1000, 2000, 5000, 10000, 30000]::bigint[]) AS bin,
        answered OR (type = 'embedding.failed' AND billed_tokens > 0) AS counted,
        type <> 'embedding.reembedded' AS charged
    FROM outcomes
), minutes AS MATERIALIZED (
    SELECT
        minute, tenant, agent, model, provider,
        count(*) FILTER (WHERE answered) AS requests,
        count(*) FILTER (WHERE type = 'embedding.failed') AS failed,
        count(*) FILTER (WHERE type = 'embedding.failed' AND code = 'cancelled') AS cancelled,
        count(*) FILTER (WHERE type = 'embedding.failed' AND code = 'deadline_exceeded') AS late,
        count(*) FILTER (WHERE type = 'embedding.abandoned') AS abandoned,
        count(*) FILTER (WHERE NOT charged) AS reembedded,
        coalesce(sum(inputs) FILTER (WHERE counted), 0) AS inputs,
        sum(cached_inputs) AS cached_inputs,
        coalesce(sum(tokens) FILTER (WHERE counted), 0) AS tokens,
        coalesce(sum(billed_tokens) FILTER (WHERE charged), 0) AS billed_tokens,
        coalesce(sum(nano_usd) FILTER (WHERE charged), 0) AS nano_usd,
        count(*) FILTER (WHERE unpriced) AS unpriced,
        coalesce(sum(provider_nano_usd), 0) AS provider_nano_usd,
        count(*) FILTER (WHERE provider_unpriced) AS provider_unpriced,
        coalesce(sum(latency_ms), 0) AS latency_ms_sum,
        coalesce(max(latency_ms), 0) AS latency_ms_max,
        count(*) FILTER (WHERE bin = 1) AS b1, count(*) FILTER (WHERE bin = 2) AS b2, count(*) FILTER (WHERE bin = 3) AS b3,
        count(*) FILTER (WHERE bin = 4) AS b4, count(*) FILTER (WHERE bin = 5) AS b5, count(*) FILTER (WHERE bin = 6) AS b6,
        count(*) FILTER (WHERE bin = 7) AS b7, count(*) FILTER (WHERE bin = 8) AS b8, count(*) FILTER (WHERE bin = 9) AS b9,
        count(*) FILTER (WHERE bin = 10) AS b10, count(*) FILTER (WHERE bin = 11) AS b11, count(*) FILTER (WHERE bin = 12) AS b12,
        count(*) FILTER (WHERE bin = 13) AS b13, count(*) FILTER (WHERE bin = 14) AS b14, count(*) FILTER (WHERE bin = 15) AS b15,
        count(*) FILTER (WHERE bin = 16) AS b16, count(*) FILTER (WHERE bin = 17) AS b17, count(*) FILTER (WHERE bin = 18) AS b18,
        count(*) FILTER (WHERE bin = 19) AS b19, count(*) FILTER (WHERE bin = 20) AS b20
    FROM binned
    GROUP BY minute, tenant, agent, model, provider
)
SELECT
    grain, date_bin(make_interval(secs => grain), minute, 'epoch') AS bucket, tenant, agent, model, provider,
    sum(requests) AS requests, sum(failed) AS failed, sum(cancelled) AS cancelled, sum(late) AS late, sum(abandoned) AS abandoned,
    sum(reembedded) AS reembedded, sum(inputs) AS inputs, sum(cached_inputs) AS cached_inputs, sum(tokens) AS tokens,
    sum(billed_tokens) AS billed_tokens, sum(nano_usd) AS nano_usd, sum(unpriced) AS unpriced,
    sum(provider_nano_usd) AS provider_nano_usd, sum(provider_unpriced) AS provider_unpriced,
    sum(latency_ms_sum) AS latency_ms_sum, max(latency_ms_max) AS latency_ms_max,
    ARRAY[sum(b1), sum(b2), sum(b3), sum(b4), sum(b5), sum(b6), sum(b7), sum(b8), sum(b9), sum(b10),
          sum(b11), sum(b12), sum(b13), sum(b14), sum(b15), sum(b16), sum(b17), sum(b18), sum(b19), sum(b20)]::bigint[] AS latency_bins
FROM minutes CROSS JOIN unnest(ARRAY[60, 3600, 86400]) AS grain
GROUP BY 1, 2, 3, 4, 5, 6
