-- The windows of the periods $1: their limits, what the leases have used and hold.
SELECT tenant, scope, subject, unit, period, limit_value, hard, limit_position, granted, used
FROM quota.windows
WHERE period = ANY ($1::text[])
