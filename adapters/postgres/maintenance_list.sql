SELECT task, next_run_at, period, owner, lease_until, last_ended_at, last_succeeded_at, last_error, last_result, last_took, failures,
    owner IS NOT NULL AND lease_until >= clock_timestamp() AS running,
    next_run_at <= clock_timestamp() AS due,
    next_run_at = 'infinity' AS never
FROM emberlog.maintenance
WHERE $1::text IS NULL OR task = $1
ORDER BY task
