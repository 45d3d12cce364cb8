-- Extends an instance's lease; false when it is fenced or unknown.
CREATE FUNCTION emberlog.renew_instance(p_instance uuid, p_lease interval) RETURNS boolean
LANGUAGE plpgsql VOLATILE SECURITY DEFINER
SET search_path = pg_catalog
SET lock_timeout = '5s'
AS $$
BEGIN
    UPDATE emberlog.instances SET lease_until = clock_timestamp() + p_lease WHERE id = p_instance AND fenced_at IS NULL;
    RETURN FOUND;
END
$$;

-- What the application may call, and nothing else. (PUBLIC has no USAGE on the schema either.)
REVOKE EXECUTE ON ALL FUNCTIONS IN SCHEMA emberlog FROM PUBLIC;
GRANT EXECUTE ON FUNCTION emberlog.append, emberlog.head, emberlog.ensure_partitions, emberlog.drop_old_dedupe_keys,
    emberlog.content_hash, emberlog.micros, emberlog.register_instance, emberlog.renew_instance, emberlog.fence_instance,
    emberlog.fence_expired, emberlog.log_day TO emberlog_app;
