-- What was used and is reserved of the quotas (scope $2, subject $3, unit $4, period $5, one an element) of tenant $1, in one snapshot, and
-- where the view stands. Reserved is what the attempts in flight may still be billed.
WITH attempts AS MATERIALIZED (
    SELECT r.agent, r.model,
           coalesce((e.data->>'day')::date, (timestamp 'epoch' + (e.data->>'at')::bigint * interval '1 microsecond')::date) AS day,
           (e.data->>'reserved_tokens')::bigint AS tokens, coalesce((e.data->>'reserved_nano_usd')::bigint, 0) AS nano_usd
    FROM projections.requests r
    JOIN emberlog.events e ON e.position = r.requested_position
    WHERE r.state = 'open' AND r.tenant = $1
)
SELECT c.position, c.recorded_at, k.item, u.used::bigint AS used, a.reserved::bigint AS reserved
FROM projections.cursors c
CROSS JOIN (
    SELECT k.*, to_date(rpad(k.period, 10, '-01'), 'YYYY-MM-DD') AS first,
           (to_date(rpad(k.period, 10, '-01'), 'YYYY-MM-DD') + CASE length(k.period) WHEN 10 THEN interval '1 day' ELSE interval '1 month' END)::date AS after
    FROM unnest($2::text[], $3::text[], $4::text[], $5::text[]) WITH ORDINALITY k (scope, subject, unit, period, item)
) k
CROSS JOIN LATERAL (
    SELECT coalesce(sum(CASE k.unit WHEN 'tokens' THEN q.used_tokens WHEN 'requests' THEN q.used_requests ELSE q.used_nano_usd END), 0) AS used
    FROM projections.quota q
    WHERE q.tenant = $1 AND q.day >= k.first AND q.day < k.after
        AND k.subject = CASE k.scope WHEN 'tenant' THEN '' WHEN 'model' THEN q.model ELSE q.agent END
) u
CROSS JOIN LATERAL (
    SELECT coalesce(sum(CASE k.unit WHEN 'tokens' THEN t.tokens WHEN 'requests' THEN 1 ELSE t.nano_usd END), 0) AS reserved
    FROM attempts t
    WHERE t.day >= k.first AND t.day < k.after
        AND k.subject = CASE k.scope WHEN 'tenant' THEN '' WHEN 'model' THEN t.model ELSE t.agent END
) a
WHERE c.name = 'quota' AND c.state = 'live'
ORDER BY k.item
