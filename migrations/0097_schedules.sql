-- Scheduled work is shown as it stands: the period that gateways keep a task by (null: none, it is run when it is asked for), and what its
-- last run did and how long it took.
ALTER TABLE emberlog.maintenance
    ADD COLUMN period interval,
    ADD COLUMN last_result jsonb,
    ADD COLUMN last_took interval;

-- As before, and keeps the period: where it becomes another, the next run is at most one of the new periods away; without one (`p_period`
-- null) it is never, unless it is due already.
CREATE OR REPLACE FUNCTION emberlog.claim_maintenance(p_task text, p_owner uuid, p_period interval, p_lease interval) RETURNS bigint
LANGUAGE plpgsql VOLATILE SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
SET lock_timeout = '5s'
AS $$
DECLARE
    v_fence bigint;
BEGIN
    IF NOT EXISTS (SELECT FROM emberlog.maintenance m WHERE m.task = p_task AND m.period IS NOT DISTINCT FROM p_period) THEN
        INSERT INTO emberlog.maintenance AS m (task, next_run_at, period)
        VALUES (p_task, coalesce(clock_timestamp() + p_period, 'infinity'), p_period)
        ON CONFLICT (task) DO UPDATE
        SET period = p_period,
            next_run_at = CASE WHEN m.next_run_at <= clock_timestamp() THEN m.next_run_at
                WHEN p_period IS NULL THEN 'infinity'
                ELSE least(m.next_run_at, clock_timestamp() + p_period) END;
    END IF;
    UPDATE emberlog.maintenance m
    SET owner = p_owner, fence = m.fence + 1, lease_until = clock_timestamp() + p_lease, last_started_at = clock_timestamp()
    FROM (
        SELECT d.task FROM emberlog.maintenance d
        WHERE d.task = p_task AND d.next_run_at <= clock_timestamp() AND d.lease_until < clock_timestamp()
        LIMIT 1
        FOR UPDATE SKIP LOCKED
    ) due
    WHERE m.task = due.task
    RETURNING m.fence INTO v_fence;
    RETURN v_fence;
END
$$;
REVOKE ALL ON FUNCTION emberlog.claim_maintenance FROM PUBLIC;
GRANT EXECUTE ON FUNCTION emberlog.claim_maintenance TO emberlog_app;
