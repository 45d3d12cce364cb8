-- Ends a task's run, and keeps what it did (`p_result`). The next is due a period later, or, after a failure (`p_error`), after a pause that
-- doubles from a minute with each failure in a row, up to the period; a task without a period waits until it is asked for. False, and
-- nothing changes, when the run is over or another has begun. Gateways of the release before call it without the result.
CREATE FUNCTION emberlog.finish_maintenance(p_task text, p_fence bigint, p_period interval, p_error text, p_result jsonb) RETURNS boolean
LANGUAGE plpgsql VOLATILE SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
SET lock_timeout = '5s'
AS $$
BEGIN
    UPDATE emberlog.maintenance m
    SET owner = NULL,
        lease_until = '-infinity',
        last_ended_at = clock_timestamp(),
        last_succeeded_at = CASE WHEN p_error IS NULL THEN clock_timestamp() ELSE m.last_succeeded_at END,
        last_error = p_error,
        last_result = p_result,
        last_took = clock_timestamp() - m.last_started_at,
        failures = CASE WHEN p_error IS NULL THEN 0 ELSE m.failures + 1 END,
        next_run_at = CASE WHEN p_period IS NULL THEN 'infinity'
            WHEN p_error IS NULL THEN clock_timestamp() + p_period
            ELSE clock_timestamp() + least(p_period, interval '1 minute' * 2 ^ least(m.failures, 20)) END
    WHERE m.task = p_task AND m.fence = p_fence AND m.owner IS NOT NULL;
    RETURN FOUND;
END
$$;
REVOKE ALL ON FUNCTION emberlog.finish_maintenance(text, bigint, interval, text, jsonb) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION emberlog.finish_maintenance(text, bigint, interval, text, jsonb) TO emberlog_app;
