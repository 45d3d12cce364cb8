-- What the events in ($1, $2] add to the quota view. A day that an event leaves out is the UTC day of its `at`. An amount absent is
-- unknown in `generated` and zero in `failed`, where null says unknown.
SELECT
    e.tenant,
    coalesce(d.day, (timestamp 'epoch' + d.at * interval '1 microsecond')::date) AS day,
    d.agent, d.model,
    coalesce(d.instance, '') AS instance,
    coalesce(sum(d.billed_tokens), 0) AS used_tokens,
    count(*) FILTER (WHERE e.type = 'embedding.generated' OR d.billed_tokens > 0 OR d.characters > 0) AS used_requests,
    coalesce(sum(d.nano_usd), 0) AS used_nano_usd,
    count(*) FILTER (WHERE CASE e.type WHEN 'embedding.generated' THEN d.nano_usd IS NULL ELSE e.data->'nano_usd' = 'null' END) AS unpriced
FROM {events} e
CROSS JOIN LATERAL jsonb_to_record(e.data) AS d (
    agent text, model text, instance text, day date, at bigint, billed_tokens bigint, characters bigint, nano_usd bigint
)
WHERE e.position > $1 AND e.position <= $2 AND e.type IN ('embedding.generated', 'embedding.failed')
GROUP BY 1, 2, 3, 4, 5
