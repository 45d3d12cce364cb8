-- Makes a task due at once, for whichever gateway asks next. One that is being run, or is due, stays as it is: asked twice it is run once.
-- False where there is no such task.
CREATE FUNCTION emberlog.run_maintenance(p_task text) RETURNS boolean
LANGUAGE plpgsql VOLATILE SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
SET lock_timeout = '5s'
AS $$
BEGIN
    UPDATE emberlog.maintenance m
    SET next_run_at = CASE WHEN m.lease_until >= clock_timestamp() THEN m.next_run_at
        ELSE least(m.next_run_at, clock_timestamp()) END
    WHERE m.task = p_task;
    RETURN FOUND;
END
$$;
REVOKE ALL ON FUNCTION emberlog.run_maintenance FROM PUBLIC;
GRANT EXECUTE ON FUNCTION emberlog.run_maintenance TO emberlog_app;
