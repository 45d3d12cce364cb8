-- What was done with model $1 in [$2, $3), by tenant $4 or, where that is null, by all: one line of sums over the minutes. The bounds are
-- those of minutes.
SELECT
    coalesce(sum(requests), 0) AS requests, coalesce(sum(failed), 0) AS failed, coalesce(sum(cancelled), 0) AS cancelled,
    coalesce(sum(late), 0) AS late, coalesce(sum(abandoned), 0) AS abandoned, coalesce(sum(inputs), 0) AS inputs,
    coalesce(sum(cached_inputs), 0) AS cached_inputs, coalesce(sum(tokens), 0) AS tokens,
    coalesce(sum(billed_tokens), 0) AS billed_tokens, coalesce(sum(nano_usd), 0) AS nano_usd,
    coalesce(sum(unpriced), 0) AS unpriced, coalesce(sum(latency_ms_sum), 0) AS latency_ms_sum,
    coalesce(max(latency_ms_max), 0) AS latency_ms_max,
    ARRAY(
        SELECT coalesce(sum(v.latency_bins[n]), 0)::bigint
        FROM generate_series(1, 20) n
        LEFT JOIN projections.usage v
            ON v.grain = 60 AND v.bucket >= $2 AND v.bucket < $3 AND v.model = $1 AND ($4::text IS NULL OR v.tenant = $4)
        GROUP BY n ORDER BY n
    ) AS latency_bins
FROM projections.usage u
WHERE u.grain = 60 AND u.bucket >= $2 AND u.bucket < $3 AND u.model = $1 AND ($4::text IS NULL OR u.tenant = $4)
