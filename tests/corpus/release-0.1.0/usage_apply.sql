-- Folds the events in ($1, $2] into the usage view: one pass over the log by minute, hours and days from the minutes.
WITH outcomes AS (
    SELECT
        date_bin('1 minute', recorded_at, 'epoch') AS minute,
        tenant,
        data->>'agent' AS agent,
        data->>'model' AS model,
        coalesce(data->>'provider', '') AS provider,
        type,
        type = 'embedding.generated' AS answered,
        data->>'code' AS code,
        (data->>'inputs')::bigint AS inputs,
        coalesce((data->>'cached_inputs')::bigint, 0) AS cached_inputs,
        coalesce((data->>'tokens')::bigint, 0) AS tokens,
        coalesce((data->>'billed_tokens')::bigint, 0) AS billed_tokens,
        (data->>'nano_usd')::bigint AS nano_usd,
        (data->>'provider_nano_usd')::bigint AS provider_nano_usd,
        -- Defaults are left out of the JSON. An absent amount is unknown in `generated` and `reembedded`, and zero in `failed`,
        -- where null says unknown; a replay's texts and an abandoned attempt cost the tenant nothing.
        CASE type WHEN 'embedding.generated' THEN data->>'nano_usd' IS NULL
                  WHEN 'embedding.failed' THEN data->'nano_usd' = 'null' ELSE false END AS unpriced,
        CASE type WHEN 'embedding.abandoned' THEN false
                  WHEN 'embedding.failed' THEN data->'provider_nano_usd' = 'null'
                  ELSE data->>'provider_nano_usd' IS NULL END AS provider_unpriced,
        CASE type WHEN 'embedding.generated' THEN (data->>'latency_ms')::bigint END AS latency_ms
    FROM emberlog.events
    WHERE position > $1 AND position <= $2
        AND type IN ('embedding.generated', 'embedding.failed', 'embedding.abandoned', 'embedding.reembedded')
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
INSERT INTO projections.usage AS u (
    grain, bucket, tenant, agent, model, provider,
    requests, failed, cancelled, late, abandoned, reembedded, inputs, cached_inputs, tokens, billed_tokens,
    nano_usd, unpriced, provider_nano_usd, provider_unpriced, latency_ms_sum, latency_ms_max, latency_bins
)
SELECT
    grain, date_bin(make_interval(secs => grain), minute, 'epoch') AS bucket, tenant, agent, model, provider,
    sum(requests), sum(failed), sum(cancelled), sum(late), sum(abandoned), sum(reembedded),
    sum(inputs), sum(cached_inputs), sum(tokens), sum(billed_tokens),
    sum(nano_usd), sum(unpriced), sum(provider_nano_usd), sum(provider_unpriced), sum(latency_ms_sum), max(latency_ms_max),
    ARRAY[sum(b1), sum(b2), sum(b3), sum(b4), sum(b5), sum(b6), sum(b7), sum(b8), sum(b9), sum(b10),
          sum(b11), sum(b12), sum(b13), sum(b14), sum(b15), sum(b16), sum(b17), sum(b18), sum(b19), sum(b20)]::bigint[]
FROM minutes CROSS JOIN unnest(ARRAY[60, 3600, 86400]) AS grain
GROUP BY 1, 2, 3, 4, 5, 6
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
