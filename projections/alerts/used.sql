-- What each agent used of each model, on the day and in the month that a tenant is in: rows of $1 (tenants) with $2 (their days).
SELECT
    q.tenant, q.agent, q.model,
    coalesce(sum(q.used_tokens) FILTER (WHERE q.day = w.day), 0)::bigint AS day_tokens,
    coalesce(sum(q.used_requests) FILTER (WHERE q.day = w.day), 0)::bigint AS day_requests,
    coalesce(sum(q.used_nano_usd) FILTER (WHERE q.day = w.day), 0)::bigint AS day_nano_usd,
    sum(q.used_tokens)::bigint AS month_tokens,
    sum(q.used_requests)::bigint AS month_requests,
    sum(q.used_nano_usd)::bigint AS month_nano_usd
FROM unnest($1::text[], $2::date[]) AS w (tenant, day)
JOIN projections.quota q ON q.tenant = w.tenant
    AND q.day >= date_trunc('month', w.day)::date AND q.day < (date_trunc('month', w.day) + interval '1 month')::date
GROUP BY q.tenant, q.agent, q.model
