-- Where the leases of the days from $1 on, and of the months, and the log disagree. Of an instance that is closed its lease must be what
-- the log says it used; one that lives must hold at least what it has used and what its open attempts have reserved. `off` is by how much
-- not. Open attempts are counted only where the view of requests has come as far as that of quotas: else one may be counted as used, too.
WITH held AS (
    SELECT w.tenant, w.scope, w.subject, w.unit, w.period, w.limit_position, l.instance, l.granted
    FROM quota.windows w
    JOIN quota.leases l USING (tenant, scope, subject, unit, period)
    WHERE w.counted AND (length(w.period) = 10 AND w.period >= to_char($1::date, 'YYYY-MM-DD')
        OR length(w.period) = 7 AND w.period >= to_char($1::date, 'YYYY-MM'))
), known AS (
    SELECT DISTINCT h.tenant, h.scope, h.subject, h.unit, h.period, h.limit_position,
           to_date(rpad(h.period, 10, '-01'), 'YYYY-MM-DD') AS first,
           (to_date(rpad(h.period, 10, '-01'), 'YYYY-MM-DD')
            + CASE length(h.period) WHEN 10 THEN interval '1 day' ELSE interval '1 month' END)::date AS after
    FROM held h
), matched AS (  -- one scope at a time, so that each is joined by what is equal: there may be ten thousand budgets of agents
    SELECT k.*, u.instance, u.used_tokens, u.used_requests, u.used_nano_usd
    FROM known k JOIN projections.quota u ON u.tenant = k.tenant AND u.agent = k.subject AND u.day >= k.first AND u.day < k.after
    WHERE k.scope NOT IN ('tenant', 'model') AND u.day >= date_trunc('month', $1::date)
    UNION ALL
    SELECT k.*, u.instance, u.used_tokens, u.used_requests, u.used_nano_usd
    FROM known k JOIN projections.quota u ON u.tenant = k.tenant AND u.model = k.subject AND u.day >= k.first AND u.day < k.after
    WHERE k.scope = 'model' AND u.day >= date_trunc('month', $1::date)
    UNION ALL
    SELECT k.*, u.instance, u.used_tokens, u.used_requests, u.used_nano_usd
    FROM known k JOIN projections.quota u ON u.tenant = k.tenant AND u.day >= k.first AND u.day < k.after
    WHERE k.scope = 'tenant' AND u.day >= date_trunc('month', $1::date)
), spent AS (
    SELECT m.tenant, m.scope, m.subject, m.unit, m.period, m.limit_position, m.instance,
           sum(CASE m.unit WHEN 'tokens' THEN m.used_tokens WHEN 'requests' THEN m.used_requests ELSE m.used_nano_usd END) AS used
    FROM matched m
    GROUP BY 1, 2, 3, 4, 5, 6, 7
), attempts AS (
    SELECT r.tenant, r.agent, r.model, r.instance,
           coalesce((e.data->>'day')::date, (timestamp 'epoch' + (e.data->>'at')::bigint * interval '1 microsecond')::date) AS day,
           (e.data->>'reserved_tokens')::bigint AS tokens, coalesce((e.data->>'reserved_nano_usd')::bigint, 0) AS nano_usd
    FROM projections.requests r
    JOIN emberlog.events e ON e.position = r.requested_position
    WHERE r.state = 'open'
        AND (SELECT c.position FROM projections.cursors c WHERE c.name = 'requests' AND c.state = 'live')
            >= (SELECT c.position FROM projections.cursors c WHERE c.name = 'quota' AND c.state = 'live')
), reserved AS (
    SELECT k.tenant, k.scope, k.subject, k.unit, k.period, k.limit_position, a.instance,
           sum(CASE k.unit WHEN 'tokens' THEN a.tokens WHEN 'requests' THEN 1 ELSE a.nano_usd END) AS reserved
    FROM known k
    JOIN attempts a ON a.tenant = k.tenant
        AND k.period IN (to_char(a.day, 'YYYY-MM-DD'), to_char(a.day, 'YYYY-MM'))
        AND k.subject = CASE k.scope WHEN 'tenant' THEN '' WHEN 'model' THEN a.model ELSE a.agent END
    GROUP BY 1, 2, 3, 4, 5, 6, 7
)
SELECT tenant, scope, subject, unit, period, limit_position, instance, off::bigint
FROM (
    SELECT tenant, scope, subject, unit, period, limit_position, instance,
           CASE WHEN instance = '' OR coalesce(i.closed, false) THEN abs(coalesce(h.granted, 0) - coalesce(s.used, 0))
                ELSE greatest(0, coalesce(s.used, 0) + coalesce(v.reserved, 0) - coalesce(h.granted, 0)) END AS off
    FROM held h
    FULL JOIN spent s USING (tenant, scope, subject, unit, period, limit_position, instance)
    FULL JOIN reserved v USING (tenant, scope, subject, unit, period, limit_position, instance)
    LEFT JOIN quota.instances i ON i.id = instance
) d
WHERE off > 0
