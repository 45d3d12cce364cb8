-- Fences every instance whose lease ran out by this server's clock, and returns those newly fenced. The lock is only asked for
-- when there is such an instance.
CREATE FUNCTION emberlog.fence_expired() RETURNS SETOF uuid
LANGUAGE plpgsql VOLATILE SECURITY DEFINER
SET search_path = pg_catalog
SET lock_timeout = '5s'
AS $$
BEGIN
    IF NOT EXISTS (SELECT FROM emberlog.instances WHERE fenced_at IS NULL AND lease_until < clock_timestamp()) THEN
        RETURN;
    END IF;
    PERFORM emberlog.lock_log();
    RETURN QUERY
        UPDATE emberlog.instances SET fenced_at = clock_timestamp(), fenced_head = (SELECT h.position FROM emberlog.head() h)
        WHERE fenced_at IS NULL AND lease_until < clock_timestamp()
        RETURNING id;
END
$$;
