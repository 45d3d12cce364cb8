-- What was used of the quotas of $1 (tenants) on their days $2, in the scopes $3, of the subjects $4, in the units $5 and windows $6: those of
-- which more than $8 percent of the limit $7 is used. One pass over a tenant's month, whatever the number of its quotas.
WITH quotas AS (
    SELECT * FROM unnest($1::text[], $2::date[], $3::text[], $4::text[], $5::text[], $6::text[], $7::bigint[])
        WITH ORDINALITY AS q (tenant, day, scope, subject, unit, period, most, number)
), tenants AS (
    SELECT DISTINCT tenant, day FROM quotas
), used AS MATERIALIZED (
    SELECT
        u.tenant, CASE WHEN grouping(u.model) = 0 THEN 'model' WHEN grouping(u.agent) = 0 THEN 'agent' ELSE 'tenant' END AS scope,
        coalesce(u.model, u.agent, '') AS subject,
        coalesce(sum(u.used_tokens) FILTER (WHERE u.day = t.day), 0) AS day_tokens,
        coalesce(sum(u.used_requests) FILTER (WHERE u.day = t.day), 0) AS day_requests,
        coalesce(sum(u.used_nano_usd) FILTER (WHERE u.day = t.day), 0) AS day_nano_usd,
        sum(u.used_tokens) AS month_tokens, sum(u.used_requests) AS month_requests, sum(u.used_nano_usd) AS month_nano_usd
    FROM tenants t
    JOIN projections.quota u ON u.tenant = t.tenant
        AND u.day >= date_trunc('month', t.day)::date AND u.day < (date_trunc('month', t.day) + interval '1 month')::date
    GROUP BY GROUPING SETS ((u.tenant), (u.tenant, u.model), (u.tenant, u.agent))
), amounts AS (
    SELECT q.number, q.most, CASE q.period || ' ' || q.unit
        WHEN 'day tokens' THEN u.day_tokens WHEN 'day requests' THEN u.day_requests WHEN 'day nano_usd' THEN u.day_nano_usd
        WHEN 'month tokens' THEN u.month_tokens WHEN 'month requests' THEN u.month_requests WHEN 'month nano_usd' THEN u.month_nano_usd
    END AS amount
    FROM quotas q
    -- An agent's own budget counts what the agent used.
    JOIN used u ON u.tenant = q.tenant AND u.scope = CASE q.scope WHEN 'agent_own' THEN 'agent' ELSE q.scope END AND u.subject = q.subject
)
SELECT number, amount::bigint AS amount FROM amounts WHERE amount > 0 AND amount * 100 > most::numeric * $8
