-- What the events in ($1, $2] add to the cost view: one pass over the log by hour, days and months from the hours.
WITH outcomes AS (
    SELECT
        date_trunc('hour', e.recorded_at, 'UTC') AS hour,
        e.tenant, e.type, d.agent, d.model, coalesce(d.provider, '') AS provider,
        e.type = 'embedding.generated' AS answered,
        d.tokens, coalesce(d.billed_tokens, 0) AS billed_tokens, coalesce(d.characters, 0) AS characters,
        d.nano_usd, d.provider_nano_usd,
        -- Defaults are left out of the JSON. An absent amount is unknown in `generated` and `reembedded`, and zero in `failed`,
        -- where null says unknown; a replay's texts cost the tenant nothing.
        CASE e.type WHEN 'embedding.generated' THEN d.nano_usd IS NULL
                    WHEN 'embedding.failed' THEN e.data->'nano_usd' = 'null' ELSE false END AS unpriced,
        CASE e.type WHEN 'embedding.failed' THEN e.data->'provider_nano_usd' = 'null'
                    ELSE d.provider_nano_usd IS NULL END AS provider_unpriced
    FROM {events} e
    CROSS JOIN LATERAL jsonb_to_record(e.data) AS d (
        agent text, model text, provider text, tokens bigint, billed_tokens bigint, characters bigint, nano_usd bigint,
        provider_nano_usd bigint
    )
    WHERE e.position > $1 AND e.position <= $2
        AND (
            e.type IN ('embedding.generated', 'embedding.reembedded')
            -- A failure that costs nobody anything is no part of this view.
            OR e.type = 'embedding.failed' AND (
                coalesce(d.billed_tokens, 0) > 0 OR coalesce(e.data->'nano_usd', '0') <> '0'
                OR coalesce(e.data->'provider_nano_usd', '0') <> '0'
            )
        )
), hours AS MATERIALIZED (
    SELECT
        hour, tenant, agent, model, provider,
        count(*) FILTER (WHERE answered) AS requests,
        coalesce(sum(tokens) FILTER (WHERE answered OR (type = 'embedding.failed' AND billed_tokens > 0)), 0) AS tokens,
        sum(billed_tokens) AS billed_tokens,
        sum(characters) AS characters,
        coalesce(sum(nano_usd), 0) AS nano_usd,
        count(*) FILTER (WHERE unpriced) AS unpriced,
        coalesce(sum(provider_nano_usd), 0) AS provider_nano_usd,
        count(*) FILTER (WHERE provider_unpriced) AS provider_unpriced
    FROM outcomes
    GROUP BY hour, tenant, agent, model, provider
)
SELECT
    grain, date_trunc(grain, hour, 'UTC') AS bucket, tenant, agent, model, provider,
    sum(requests) AS requests, sum(tokens) AS tokens, sum(billed_tokens) AS billed_tokens, sum(characters) AS characters,
    sum(nano_usd) AS nano_usd, sum(unpriced) AS unpriced,
    sum(provider_nano_usd) AS provider_nano_usd, sum(provider_unpriced) AS provider_unpriced
FROM hours CROSS JOIN unnest(ARRAY['hour', 'day', 'month']) AS grain
GROUP BY 1, 2, 3, 4, 5, 6
