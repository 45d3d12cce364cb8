-- Drops the dedupe partitions of days before yesterday, by the newest event's day and the clock alike: whichever is earlier
-- decides, so that a clock that jumps ahead loses no key. Returns how many were dropped. If readers hold a partition for
-- longer than the timeout the call fails with nothing changed; run it again later.
CREATE FUNCTION emberlog.drop_old_dedupe_keys() RETURNS integer
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog
SET lock_timeout = '500ms'
AS $$
DECLARE
    v_newest timestamptz;
    v_keep integer;
    v_name text;
    v_dropped integer := 0;
BEGIN
    PERFORM emberlog.lock_log();
    SELECT h.recorded_at INTO v_newest FROM emberlog.head() h;
    v_keep := floor(extract(epoch FROM least(v_newest, clock_timestamp())) / 86400)::integer - 1;
    FOR v_name IN
        SELECT c.relname FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid
        WHERE i.inhparent = 'emberlog.dedupe_keys'::regclass AND replace(c.relname, 'dedupe_keys_', '')::integer < v_keep
    LOOP
        EXECUTE format('DROP TABLE emberlog.%I', v_name);
        v_dropped := v_dropped + 1;
    END LOOP;
    RETURN v_dropped;
END
$$;
