-- Periodic tasks: when each is due next and who runs it. All times are this server's. `fence` grows with every run, so that a runner
-- who returns late changes nothing; `failures` counts the failed runs since the last good one.
CREATE TABLE emberlog.maintenance (
    task text PRIMARY KEY,
    next_run_at timestamptz NOT NULL,
    owner uuid,
    fence bigint NOT NULL DEFAULT 0,
    lease_until timestamptz NOT NULL DEFAULT '-infinity',
    last_started_at timestamptz,
    last_ended_at timestamptz,
    last_succeeded_at timestamptz,
    last_error text,
    failures integer NOT NULL DEFAULT 0
);

-- Takes a task for `p_lease` if it is due and nobody runs it; returns the fence to show from now on, or null. Whoever holds the row's
-- lock is taking or ending it. A task never seen before is due one period from now: what needs doing at a start is done by the start.
CREATE FUNCTION emberlog.claim_maintenance(p_task text, p_owner uuid, p_period interval, p_lease interval) RETURNS bigint
LANGUAGE plpgsql VOLATILE SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
SET lock_timeout = '5s'
AS $$
DECLARE
    v_fence bigint;
BEGIN
    IF NOT EXISTS (SELECT FROM emberlog.maintenance m WHERE m.task = p_task) THEN
        INSERT INTO emberlog.maintenance (task, next_run_at) VALUES (p_task, clock_timestamp() + p_period) ON CONFLICT DO NOTHING;
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
