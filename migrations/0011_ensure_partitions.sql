-- Makes what the next appends need, ahead: event partitions until `p_ahead` empty ones lie beyond the head's, and the dedupe
-- partitions of today and the two days after. `p_reach` is a position that must have its partition. Idempotent; run at start, periodically, and by `append` if all else failed.
-- A partition is made as a table of its own and then attached: that does not wait for readers, nor they for it.
-- `p_width` counts positions; null takes the width of the newest partition, or ten million for the first.
CREATE FUNCTION emberlog.ensure_partitions(
    p_width bigint DEFAULT NULL, p_ahead integer DEFAULT 2, p_reach bigint DEFAULT 0
) RETURNS integer
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog
SET lock_timeout = '5s'
AS $$
DECLARE
    v_head record;
    v_top record;
    v_width bigint;
    v_name text;
    v_today integer;
    v_made integer := 0;
BEGIN
    PERFORM emberlog.lock_log();
    v_head := emberlog.head();
    LOOP
        SELECT lower_bound, upper_bound INTO v_top FROM emberlog.event_partitions ORDER BY lower_bound DESC LIMIT 1;
        v_width := coalesce(p_width, v_top.upper_bound - v_top.lower_bound, 10000000);
        EXIT WHEN v_top.upper_bound > p_reach AND (
            SELECT count(*) FROM emberlog.event_partitions WHERE lower_bound > v_head.position
        ) >= p_ahead + (v_head.position = 0)::integer;
        v_top.lower_bound := coalesce(v_top.upper_bound, v_head.position + 1);
        v_top.upper_bound := v_top.lower_bound + v_width;
        v_name := format('events_%s', lpad(v_top.lower_bound::text, 12, '0'));
        EXECUTE format('CREATE TABLE emberlog.%I (LIKE emberlog.events INCLUDING DEFAULTS INCLUDING CONSTRAINTS INCLUDING INDEXES)', v_name);
        PERFORM emberlog.guard_events(format('emberlog.%I', v_name)::regclass);
        EXECUTE format('ALTER TABLE emberlog.events ATTACH PARTITION emberlog.%I FOR VALUES FROM (%s) TO (%s)',
                       v_name, v_top.lower_bound, v_top.upper_bound);
        INSERT INTO emberlog.event_partitions (lower_bound, upper_bound, name)
        VALUES (v_top.lower_bound, v_top.upper_bound, v_name);
        v_made := v_made + 1;
    END LOOP;

    v_today := emberlog.log_day(v_head.recorded_at);
    FOR v_day IN v_today .. v_today + 2 LOOP
        v_name := format('dedupe_keys_%s', v_day);
        CONTINUE WHEN to_regclass(format('emberlog.%I', v_name)) IS NOT NULL;
        EXECUTE format('CREATE TABLE emberlog.%I (LIKE emberlog.dedupe_keys INCLUDING INDEXES)', v_name);
        EXECUTE format('ALTER TABLE emberlog.dedupe_keys ATTACH PARTITION emberlog.%I FOR VALUES IN (%s)', v_name, v_day);
        v_made := v_made + 1;
    END LOOP;
    RETURN v_made;
END
$$;
