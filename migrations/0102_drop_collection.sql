-- Drops the table of a collection, for good: it is not made again. Whether it had one. Whoever reads it at this moment is waited for.
CREATE FUNCTION emberlog.drop_collection(p_id text, p_tenant text) RETURNS boolean
LANGUAGE plpgsql VOLATILE SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    v_row emberlog.collections;
    v_found boolean;
BEGIN
    INSERT INTO emberlog.collections (id, tenant) VALUES (p_id, p_tenant) ON CONFLICT (id) DO NOTHING;
    SELECT * INTO STRICT v_row FROM emberlog.collections c WHERE c.id = p_id FOR UPDATE;
    IF v_row.tenant <> p_tenant THEN
        RAISE EXCEPTION 'the collection is of another tenant' USING ERRCODE = '42501';
    END IF;
    v_found := to_regclass(format('vectors.%I', 'c_' || p_id)) IS NOT NULL;
    UPDATE emberlog.collections SET dropped_at = coalesce(dropped_at, clock_timestamp()) WHERE id = p_id;
    EXECUTE format('DROP TABLE IF EXISTS vectors.%I', 'c_' || p_id);
    RETURN v_found;
END
$$;

REVOKE ALL ON FUNCTION emberlog.drop_collection FROM PUBLIC;
GRANT EXECUTE ON FUNCTION emberlog.drop_collection TO emberlog_app;
