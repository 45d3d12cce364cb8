-- Says what an instance holds of some windows, and grants it more: all in one call. Per window it `holds` so much (its lease is set to
-- that), has `used` that part of it, and needs `need` more. Granted is the need and a part of `extra`, at most an eighth of what would
-- remain, so that leases shrink towards the limit; where the need is more than remains, what remains, if that is at least `least`; else
-- nothing. What the instance holds is never taken from it: it has used or promised it.
--
-- Where a quota was removed and set again in the same window, all was used unasked meanwhile: it is counted anew, once the view has come as
-- far as `p_since`, where the quota was set that none was before.
--
-- A call of a fenced instance fails with EL001: it may have given up requests whose outcomes are in the log all the same, and no longer
-- knows what it holds. One that comes behind a later one of the same instance (its sender has given it up) fails
-- with EL004: what it says is no longer so. Windows are locked in the order of their keys.
CREATE FUNCTION quota.lease(
    p_instance text,
    p_serial bigint,
    p_tenants text[],
    p_scopes text[],
    p_subjects text[],
    p_units text[],
    p_periods text[],
    p_limits bigint[],
    p_hard boolean[],
    p_positions bigint[],
    p_since bigint[],
    p_holds bigint[],
    p_used bigint[],
    p_needs bigint[],
    p_least bigint[],
    p_extra bigint[]
) RETURNS TABLE (item bigint, given bigint, limit_value bigint, granted bigint, used bigint, behind boolean)
LANGUAGE plpgsql VOLATILE
SET search_path = pg_catalog, pg_temp
SET lock_timeout = '5s'
AS $$
#variable_conflict use_column
DECLARE
    v_ask record;
    v_window quota.windows;
    v_granted bigint;
    v_used bigint;
    v_room bigint;
    v_changed boolean;
BEGIN
    IF NOT EXISTS (SELECT FROM emberlog.instances i WHERE i.id = p_instance::uuid AND i.fenced_at IS NULL)
        OR EXISTS (SELECT FROM quota.instances i WHERE i.id = p_instance AND i.closed) THEN
        RAISE EXCEPTION 'instance % is fenced or unknown', p_instance
            USING ERRCODE = 'EL001', HINT = 'Register a new instance; what this one held is counted from the log.';
    END IF;
    INSERT INTO quota.instances AS i (id, serial) VALUES (p_instance, p_serial)
    ON CONFLICT (id) DO UPDATE SET serial = p_serial WHERE i.serial < p_serial AND NOT i.closed;
    IF NOT FOUND THEN
        RAISE EXCEPTION 'call % of instance % came too late', p_serial, p_instance USING ERRCODE = 'EL004';
    END IF;
    FOR v_ask IN
        SELECT a.*
        FROM unnest(p_tenants, p_scopes, p_subjects, p_units, p_periods, p_limits, p_hard, p_positions, p_since, p_holds, p_used, p_needs,
                    p_least, p_extra) WITH ORDINALITY
            a (tenant, scope, subject, unit, period, limit_value, hard, position, since, holds, used, need, least, extra, item)
        ORDER BY a.tenant, a.scope, a.subject, a.unit, a.period
    LOOP
        INSERT INTO quota.windows (tenant, scope, subject, unit, period, limit_value, hard, limit_position)
        VALUES (v_ask.tenant, v_ask.scope, v_ask.subject, v_ask.unit, v_ask.period, v_ask.limit_value, v_ask.hard, v_ask.position)
        ON CONFLICT DO NOTHING;
        SELECT * INTO v_window FROM quota.windows w
        WHERE (w.tenant, w.scope, w.subject, w.unit, w.period)
            = (v_ask.tenant, v_ask.scope, v_ask.subject, v_ask.unit, v_ask.period)
        FOR UPDATE;
        v_changed := v_ask.position > v_window.limit_position;
        IF v_changed THEN
            UPDATE quota.windows w
            SET limit_value = v_ask.limit_value, hard = v_ask.hard, limit_position = v_ask.position,
                counted = w.counted AND v_ask.since <= w.limit_position
            WHERE (w.tenant, w.scope, w.subject, w.unit, w.period)
                = (v_ask.tenant, v_ask.scope, v_ask.subject, v_ask.unit, v_ask.period)
            RETURNING * INTO v_window;
        END IF;
        IF NOT v_window.counted AND v_ask.position = v_window.limit_position AND EXISTS (
                SELECT FROM projections.cursors c WHERE c.name = 'quota' AND c.state = 'live' AND c.position >= v_ask.since) THEN
            PERFORM quota.count_used(v_ask.tenant, v_ask.scope, v_ask.subject, v_ask.unit, v_ask.period);
            SELECT * INTO v_window FROM quota.windows w
            WHERE (w.tenant, w.scope, w.subject, w.unit, w.period)
                = (v_ask.tenant, v_ask.scope, v_ask.subject, v_ask.unit, v_ask.period);
        END IF;

        v_granted := NULL;
        v_used := NULL;
        SELECT l.granted, l.used INTO v_granted, v_used FROM quota.leases l
        WHERE (l.tenant, l.scope, l.subject, l.unit, l.period, l.instance)
            = (v_ask.tenant, v_ask.scope, v_ask.subject, v_ask.unit, v_ask.period, p_instance);
        v_room := v_window.limit_value - (v_window.granted - coalesce(v_granted, 0) + v_ask.holds);
        item := v_ask.item;
        behind := NOT v_window.counted;
        given := CASE
            WHEN behind OR NOT v_window.hard OR v_ask.need + v_ask.extra <= 0 OR v_room < greatest(v_ask.least, 1) THEN 0
            WHEN v_room < v_ask.need THEN v_room
            ELSE v_ask.need + least(v_ask.extra, (v_room - v_ask.need) / 8)
        END;
        INSERT INTO quota.leases AS l (tenant, scope, subject, unit, period, instance, granted, used)
        VALUES (v_ask.tenant, v_ask.scope, v_ask.subject, v_ask.unit, v_ask.period, p_instance, v_ask.holds + given, v_ask.used)
        ON CONFLICT (tenant, scope, subject, unit, period, instance)
            DO UPDATE SET granted = excluded.granted, used = excluded.used
            WHERE (l.granted, l.used) <> (excluded.granted, excluded.used);
        limit_value := v_window.limit_value;
        granted := v_window.granted - coalesce(v_granted, 0) + v_ask.holds + given;
        used := v_window.used - coalesce(v_used, 0) + v_ask.used;
        UPDATE quota.windows w SET granted = lease.granted, used = lease.used
        WHERE (w.tenant, w.scope, w.subject, w.unit, w.period)
            = (v_ask.tenant, v_ask.scope, v_ask.subject, v_ask.unit, v_ask.period)
            AND (w.granted, w.used) <> (lease.granted, lease.used);
        RETURN NEXT;
    END LOOP;
END
$$;
REVOKE ALL ON FUNCTION quota.lease FROM PUBLIC;
GRANT EXECUTE ON FUNCTION quota.lease TO emberlog_app;
