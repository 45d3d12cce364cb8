-- Forgets instances fenced longer than `p_age` ago; returns how many. One that an open attempt names stays: the attempt's end is
-- found by it. So does one whose last events the requests view may not have folded yet, in whichever generation, because its open
-- attempts are not known before.
CREATE FUNCTION emberlog.sweep_instances(p_age interval) RETURNS integer
LANGUAGE plpgsql VOLATILE SECURITY DEFINER
SET search_path = pg_catalog
SET lock_timeout = '5s'
AS $$
DECLARE
    v_swept integer;
BEGIN
    DELETE FROM emberlog.instances i
    WHERE i.fenced_at < clock_timestamp() - p_age
        AND i.fenced_head <= (SELECT min(c.position) FROM projections.cursors c WHERE c.name = 'requests')
        AND NOT EXISTS (SELECT FROM projections.requests r WHERE r.state = 'open' AND r.instance = i.id::text);
    GET DIAGNOSTICS v_swept = ROW_COUNT;
    RETURN v_swept;
END
$$;
REVOKE ALL ON FUNCTION emberlog.sweep_instances FROM PUBLIC;
GRANT EXECUTE ON FUNCTION emberlog.sweep_instances TO emberlog_app;
