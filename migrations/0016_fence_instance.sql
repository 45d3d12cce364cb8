-- Fences an instance and returns the head at that moment. It waits for an append under way, and every later one of the instance
-- is refused: nothing of it lies behind the returned head. Fencing again returns the same head. An unknown instance has
-- appended nothing that could still come, so the present head is its answer.
CREATE FUNCTION emberlog.fence_instance(p_instance uuid) RETURNS bigint
LANGUAGE plpgsql VOLATILE SECURITY DEFINER
SET search_path = pg_catalog
SET lock_timeout = '5s'
AS $$
DECLARE
    v_head bigint;
BEGIN
    PERFORM emberlog.lock_log();
    SELECT h.position INTO v_head FROM emberlog.head() h;
    UPDATE emberlog.instances SET fenced_at = clock_timestamp(), fenced_head = v_head WHERE id = p_instance AND fenced_at IS NULL;
    RETURN coalesce((SELECT i.fenced_head FROM emberlog.instances i WHERE i.id = p_instance), v_head);
END
$$;
