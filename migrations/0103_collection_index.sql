-- How the index over a collection's vectors stands: `ready`, `building` with what is done of how much, or `none`. The views of what other
-- sessions are at show that to their own role alone, which is why the owner is asked.
CREATE FUNCTION emberlog.collection_index(p_id text, OUT state text, OUT phase text, OUT done bigint, OUT total bigint)
LANGUAGE plpgsql STABLE SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    v_table regclass := to_regclass(format('vectors.%I', 'c_' || p_id));
BEGIN
    state := 'none';
    IF EXISTS (SELECT FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid
               WHERE i.indrelid = v_table AND c.relname = 'c_' || p_id || '_hnsw' AND i.indisvalid) THEN
        state := 'ready';
        RETURN;
    END IF;
    SELECT 'building', p.phase, p.tuples_done, p.tuples_total INTO state, phase, done, total
    FROM pg_stat_progress_create_index p WHERE p.relid = v_table AND p.datname = current_database();
    state := coalesce(state, 'none');
END
$$;

REVOKE ALL ON FUNCTION emberlog.collection_index FROM PUBLIC;
GRANT EXECUTE ON FUNCTION emberlog.collection_index TO emberlog_app;
