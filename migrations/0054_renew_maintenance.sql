-- Extends the lease on a task's run; false when the run is over or another has begun.
CREATE FUNCTION emberlog.renew_maintenance(p_task text, p_fence bigint, p_lease interval) RETURNS boolean
LANGUAGE plpgsql VOLATILE SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
SET lock_timeout = '5s'
AS $$
BEGIN
    UPDATE emberlog.maintenance m SET lease_until = clock_timestamp() + p_lease
    WHERE m.task = p_task AND m.fence = p_fence AND m.owner IS NOT NULL;
    RETURN FOUND;
END
$$;
REVOKE ALL ON FUNCTION emberlog.renew_maintenance FROM PUBLIC;
GRANT EXECUTE ON FUNCTION emberlog.renew_maintenance TO emberlog_app;
