-- Makes the table of a collection, unless it is there; false where the collection was dropped. Vectors of more than 2,000 dimensions are
-- kept in half precision: an index takes no longer ones in single precision, and none of more than 4,000.
CREATE FUNCTION emberlog.open_collection(p_id text, p_tenant text, p_dimensions integer) RETURNS boolean
LANGUAGE plpgsql VOLATILE SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    v_row emberlog.collections;
    v_table text := 'c_' || p_id;
    v_type text;
BEGIN
    IF p_dimensions NOT BETWEEN 1 AND 4000 THEN
        RAISE EXCEPTION 'a collection cannot have vectors of % dimensions: 1 to 4000', p_dimensions USING ERRCODE = '22023';
    END IF;
    INSERT INTO emberlog.collections (id, tenant) VALUES (p_id, p_tenant) ON CONFLICT (id) DO NOTHING;
    SELECT * INTO STRICT v_row FROM emberlog.collections c WHERE c.id = p_id FOR UPDATE;
    IF v_row.tenant <> p_tenant THEN
        RAISE EXCEPTION 'the collection is of another tenant' USING ERRCODE = '42501';
    END IF;
    IF v_row.dropped_at IS NOT NULL THEN
        RETURN false;
    END IF;
    IF to_regclass(format('vectors.%I', v_table)) IS NOT NULL THEN
        RETURN true;
    END IF;
    SELECT format('%I.%I(%s)', n.nspname, CASE WHEN p_dimensions <= 2000 THEN 'vector' ELSE 'halfvec' END, p_dimensions)
    INTO STRICT v_type
    FROM pg_extension e JOIN pg_namespace n ON n.oid = e.extnamespace WHERE e.extname = 'vector';
    EXECUTE format(
        'CREATE TABLE vectors.%I (id text PRIMARY KEY, embedding %s NOT NULL, metadata jsonb, '
        'updated_at timestamptz NOT NULL DEFAULT clock_timestamp())', v_table, v_type);
    EXECUTE format('CREATE INDEX %I ON vectors.%I USING gin (metadata jsonb_path_ops)', v_table || '_metadata', v_table);
    EXECUTE format('GRANT SELECT, INSERT, UPDATE, DELETE ON vectors.%I TO emberlog_app', v_table);
    RETURN true;
END
$$;

REVOKE ALL ON FUNCTION emberlog.open_collection FROM PUBLIC;
GRANT EXECUTE ON FUNCTION emberlog.open_collection TO emberlog_app;
