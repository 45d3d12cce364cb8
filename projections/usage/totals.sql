-- What tenant $2 used in buckets of grain $1 (seconds) from $3 on and before $4, of model $5 (null: all): one row over all (`grouped` 3), one
-- a model (`grouped` 1), one an agent (`grouped` 2), those that cost most first; at most $6 rows.
SELECT
    grouping(model, agent) AS grouped, model, agent,
    coalesce(sum(requests), 0)::bigint AS requests, coalesce(sum(failed), 0)::bigint AS failed,
    coalesce(sum(tokens), 0)::bigint AS tokens, coalesce(sum(billed_tokens), 0)::bigint AS billed_tokens,
    coalesce(sum(nano_usd), 0)::bigint AS nano_usd, coalesce(sum(unpriced), 0)::bigint AS unpriced
FROM projections.usage
WHERE grain = $1 AND tenant = $2 AND bucket >= $3 AND bucket < $4 AND ($5::text IS NULL OR model = $5)
GROUP BY GROUPING SETS ((), (model), (agent))
ORDER BY grouping(model, agent) DESC, sum(nano_usd) DESC, sum(tokens) DESC, agent COLLATE "C", model COLLATE "C"
LIMIT $6
