-- Costs of grain $1: of tenant $2, of buckets from the one that holds $3 on and before $4, of agent $5, model $6 and provider $7; null is no
-- limit. They are summed over what $8 (`bucket`, `tenant`, `agent`, `model`, `provider`) does not name; at most $9 rows. With them, in one
-- snapshot, where the view stands, which one line of nulls says where no row is found.
SELECT s.position, s.recorded_at, c.*
FROM (SELECT position, recorded_at FROM projections.cursors WHERE name = 'cost' AND state = 'live') s
LEFT JOIN LATERAL (
    SELECT
        CASE WHEN 'bucket' = ANY($8::text[]) THEN c.bucket END AS bucket,
        CASE WHEN 'tenant' = ANY($8) THEN c.tenant END AS tenant,
        CASE WHEN 'agent' = ANY($8) THEN c.agent END AS agent,
        CASE WHEN 'model' = ANY($8) THEN c.model END AS model,
        CASE WHEN 'provider' = ANY($8) THEN c.provider END AS provider,
        sum(c.requests)::bigint AS requests, sum(c.tokens)::bigint AS tokens, sum(c.billed_tokens)::bigint AS billed_tokens,
        sum(c.characters)::bigint AS characters, sum(c.nano_usd)::bigint AS nano_usd, sum(c.unpriced)::bigint AS unpriced,
        sum(c.provider_nano_usd)::bigint AS provider_nano_usd, sum(c.provider_unpriced)::bigint AS provider_unpriced
    FROM projections.cost c
    WHERE c.grain = $1
        AND ($2::text IS NULL OR c.tenant = $2)
        AND ($3::timestamptz IS NULL OR c.bucket >= date_trunc($1, $3, 'UTC'))
        AND ($4::timestamptz IS NULL OR c.bucket < $4)
        AND ($5::text IS NULL OR c.agent = $5)
        AND ($6::text IS NULL OR c.model = $6)
        AND ($7::text IS NULL OR c.provider = $7)
    GROUP BY 1, 2, 3, 4, 5
    LIMIT $9
) c ON true
ORDER BY c.bucket, c.tenant COLLATE "C", c.agent COLLATE "C", c.model COLLATE "C", c.provider COLLATE "C"
