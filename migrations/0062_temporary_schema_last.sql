-- Postgres looks for types and tables in the caller's temporary schema first, unless the search path names that schema elsewhere. A domain
-- there of the name of a type that a function casts to would be checked, by whatever its maker wrote, with the rights of the function's
-- owner. So it comes last.
ALTER FUNCTION emberlog.refuse_change SET search_path = pg_catalog, pg_temp;
ALTER FUNCTION emberlog.guard_events SET search_path = pg_catalog, pg_temp;
ALTER FUNCTION emberlog.lock_log SET search_path = pg_catalog, pg_temp;
ALTER FUNCTION emberlog.head SET search_path = pg_catalog, pg_temp;
ALTER FUNCTION emberlog.ensure_partitions SET search_path = pg_catalog, pg_temp;
ALTER FUNCTION emberlog.drop_old_dedupe_keys SET search_path = pg_catalog, pg_temp;
ALTER FUNCTION emberlog.append SET search_path = pg_catalog, pg_temp;
ALTER FUNCTION emberlog.fence_instance SET search_path = pg_catalog, pg_temp;
ALTER FUNCTION emberlog.fence_expired SET search_path = pg_catalog, pg_temp;
ALTER FUNCTION emberlog.register_instance SET search_path = pg_catalog, pg_temp;
ALTER FUNCTION emberlog.renew_instance SET search_path = pg_catalog, pg_temp;
