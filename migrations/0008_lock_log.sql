-- Takes the one lock of the log until the transaction ends: whoever appends, fences or changes partitions holds it.
CREATE FUNCTION emberlog.lock_log() RETURNS void
LANGUAGE sql SET search_path = pg_catalog
AS $$ SELECT pg_advisory_xact_lock(4993438714461021447) $$;
