-- Counts again what gateways of a release before quotas have used of the windows from day $1 on: they hold no lease, and go on.
SELECT count(quota.count_used(w.tenant, w.scope, w.subject, w.unit, w.period))
FROM (
    SELECT w.* FROM quota.windows w
    WHERE (w.tenant, w.period) IN (
        SELECT u.tenant, p.period
        FROM projections.quota u
        CROSS JOIN LATERAL (VALUES (to_char(u.day, 'YYYY-MM-DD')), (to_char(u.day, 'YYYY-MM'))) p (period)
        WHERE u.instance = '' AND u.day >= $1::date
    )
    ORDER BY w.tenant, w.scope, w.subject, w.unit, w.period
    FOR UPDATE
) w
