-- Forgets those of these instances that are fenced, since when nothing of theirs can be appended; returns how many. Which ones nobody
-- needs any more the views tell, and whoever calls this: the application owns the views, so reading one here would run what it put
-- into it with the rights of the schema's owner.
CREATE FUNCTION emberlog.sweep_instances(p_ids uuid[]) RETURNS integer
LANGUAGE plpgsql VOLATILE SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
SET lock_timeout = '5s'
AS $$
DECLARE
    v_swept integer;
BEGIN
    DELETE FROM emberlog.instances i WHERE i.id = ANY (p_ids) AND i.fenced_at IS NOT NULL;
    GET DIAGNOSTICS v_swept = ROW_COUNT;
    RETURN v_swept;
END
$$;
REVOKE ALL ON FUNCTION emberlog.sweep_instances FROM PUBLIC;
GRANT EXECUTE ON FUNCTION emberlog.sweep_instances TO emberlog_app;
