-- Closes a fenced instance once the quota view has folded everything it wrote: its leases become what the log says it used, and what it
-- had left is free again. So is counted what it used of windows that it held no lease of, having died before it heard of the quota.
-- False where it is too early, or the instance is not fenced. Windows are locked in the order of their keys.
CREATE FUNCTION quota.close_instance(p_instance text) RETURNS boolean
LANGUAGE plpgsql VOLATILE
SET search_path = pg_catalog, pg_temp
SET lock_timeout = '5s'
AS $$
DECLARE
    v_window record;
    v_used bigint;
    v_before record;
BEGIN
    IF NOT EXISTS (
        SELECT FROM emberlog.instances i JOIN projections.cursors c ON c.name = 'quota' AND c.state = 'live'
        WHERE i.id = p_instance::uuid AND i.fenced_at IS NOT NULL AND c.position >= i.fenced_head
    ) THEN
        RETURN false;
    END IF;
    -- Waits for a call of the instance that is under way; later ones are refused.
    INSERT INTO quota.instances AS i (id, serial, closed) VALUES (p_instance, 0, true)
    ON CONFLICT (id) DO UPDATE SET closed = true WHERE NOT i.closed;
    IF NOT FOUND THEN
        RETURN true;
    END IF;
    FOR v_window IN
        SELECT l.tenant, l.scope, l.subject, l.unit, l.period FROM quota.leases l WHERE l.instance = p_instance
        UNION
        SELECT w.tenant, w.scope, w.subject, w.unit, w.period
        FROM (SELECT DISTINCT q.tenant, q.agent, q.model, q.day FROM projections.quota q WHERE q.instance = p_instance) u
        JOIN quota.windows w ON w.tenant = u.tenant
            AND w.subject = CASE w.scope WHEN 'tenant' THEN '' WHEN 'model' THEN u.model ELSE u.agent END
            AND w.period IN (to_char(u.day, 'YYYY-MM-DD'), to_char(u.day, 'YYYY-MM'))
        ORDER BY 1, 2, 3, 4, 5
    LOOP
        PERFORM FROM quota.windows w
        WHERE (w.tenant, w.scope, w.subject, w.unit, w.period)
            = (v_window.tenant, v_window.scope, v_window.subject, v_window.unit, v_window.period)
        FOR UPDATE;
        SELECT coalesce(sum(CASE v_window.unit WHEN 'tokens' THEN q.used_tokens WHEN 'requests' THEN q.used_requests
                                               ELSE q.used_nano_usd END), 0)
        INTO v_used
        FROM projections.quota q
        WHERE q.instance = p_instance AND q.tenant = v_window.tenant
            AND v_window.period IN (to_char(q.day, 'YYYY-MM-DD'), to_char(q.day, 'YYYY-MM'))
            AND v_window.subject = CASE v_window.scope WHEN 'tenant' THEN '' WHEN 'model' THEN q.model ELSE q.agent END;
        SELECT l.granted, l.used INTO v_before FROM quota.leases l
        WHERE (l.tenant, l.scope, l.subject, l.unit, l.period, l.instance)
            = (v_window.tenant, v_window.scope, v_window.subject, v_window.unit, v_window.period, p_instance);
        INSERT INTO quota.leases (tenant, scope, subject, unit, period, instance, granted, used)
        VALUES (v_window.tenant, v_window.scope, v_window.subject, v_window.unit, v_window.period, p_instance, v_used, v_used)
        ON CONFLICT (tenant, scope, subject, unit, period, instance) DO UPDATE SET granted = excluded.granted, used = excluded.used;
        UPDATE quota.windows w
        SET granted = w.granted + v_used - coalesce(v_before.granted, 0), used = w.used + v_used - coalesce(v_before.used, 0)
        WHERE (w.tenant, w.scope, w.subject, w.unit, w.period)
            = (v_window.tenant, v_window.scope, v_window.subject, v_window.unit, v_window.period);
    END LOOP;
    RETURN true;
END
$$;
REVOKE ALL ON FUNCTION quota.close_instance FROM PUBLIC;
GRANT EXECUTE ON FUNCTION quota.close_instance TO emberlog_app;
