-- Counts into the leases of one window what the log says was used of it beyond them.
SELECT count(quota.count_used(w.tenant, w.scope, w.subject, w.unit, w.period))
FROM (
    SELECT * FROM quota.windows w WHERE (w.tenant, w.scope, w.subject, w.unit, w.period) = ($1, $2, $3, $4, $5) FOR UPDATE
) w
