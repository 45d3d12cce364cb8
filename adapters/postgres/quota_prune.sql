-- Forgets the windows that ended before day $1 with their leases, and closed instances that the log has forgotten.
WITH windows AS (
    DELETE FROM quota.windows w WHERE to_date(rpad(w.period, 10, '-01'), 'YYYY-MM-DD') < $1::date - 31 RETURNING w.period
), leases AS (
    DELETE FROM quota.leases l WHERE to_date(rpad(l.period, 10, '-01'), 'YYYY-MM-DD') < $1::date - 31
), instances AS (
    DELETE FROM quota.instances q
    WHERE q.closed AND NOT EXISTS (SELECT FROM emberlog.instances i WHERE i.id::text = q.id)
        AND NOT EXISTS (SELECT FROM quota.leases l WHERE l.instance = q.id)
)
SELECT count(*) FROM windows
