-- Seals what is due, at most `p_limit` seals, and returns how many it made: every 10,000 events, and the shorter rest once its oldest
-- event is older than `p_rest_after`. A rest of nothing but `maintenance.ran` waits a day: sealing is itself told by such an event,
-- and an idle log must not go on sealing that.
--
-- The log's lock is not taken and no append waits: positions become visible in their order, so what lies up to the head
-- is there and stays as it is. Two sealers are kept apart by a lock of their own; the one who comes second does nothing.
CREATE FUNCTION emberlog.seal(p_rest_after interval DEFAULT '60 s', p_limit integer DEFAULT 100) RETURNS integer
LANGUAGE plpgsql VOLATILE SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
SET plan_cache_mode = force_generic_plan
SET enable_seqscan = off SET enable_bitmapscan = off SET jit = off
AS $$
DECLARE
    c_width CONSTANT integer := 10000;
    v_head bigint;
    v_number bigint;
    v_first bigint;
    v_last bigint;
    v_previous bytea;
    v_at timestamptz;
    v_events record;
    v_made integer := 0;
BEGIN
    IF NOT pg_try_advisory_xact_lock(4993438714461021451) THEN
        RETURN 0;
    END IF;
    SELECT h.position INTO v_head FROM emberlog.head() h;
    SELECT s.number, s.last_position, s.hash INTO v_number, v_last, v_previous
    FROM emberlog.seals s ORDER BY s.number DESC LIMIT 1;
    IF v_number IS NULL THEN
        SELECT 0, 0, sha256(uuid_send(i.installation)) INTO v_number, v_last, v_previous FROM emberlog.log_identity i;
    END IF;

    WHILE v_made < p_limit AND v_last < v_head LOOP
        v_first := v_last + 1;
        v_last := least(v_last + c_width, v_head);
        IF v_last - v_first + 1 < c_width AND NOT EXISTS (
            SELECT FROM emberlog.events e
            WHERE e.position BETWEEN v_first AND v_last AND e.recorded_at < clock_timestamp()
                - CASE WHEN e.type = 'maintenance.ran' THEN greatest(p_rest_after, interval '1 day') ELSE p_rest_after END
        ) THEN
            EXIT;
        END IF;
        SELECT count(*) AS count, sha256(string_agg(e.content_hash, ''::bytea ORDER BY e.position)) AS hash,
               string_agg(substr(e.content_hash, 1, 4), ''::bytea ORDER BY e.position) AS marks
        INTO v_events
        FROM emberlog.events e WHERE e.position BETWEEN v_first AND v_last;
        IF v_events.count <> v_last - v_first + 1 THEN
            RAISE EXCEPTION 'of the events % to % only % are there: they cannot be sealed', v_first, v_last, v_events.count
                USING ERRCODE = 'EL004', HINT = 'No append leaves a gap: look at `emberlog log verify`, and restore the log from a backup.';
        END IF;
        v_at := clock_timestamp();
        v_number := v_number + 1;
        INSERT INTO emberlog.seals (number, first_position, last_position, sealed_at, previous, events_hash, hash, marks)
        VALUES (v_number, v_first, v_last, v_at, v_previous, v_events.hash,
                emberlog.seal_hash(v_previous, v_first, v_last, emberlog.micros(v_at), v_events.hash), v_events.marks)
        RETURNING hash INTO v_previous;
        v_made := v_made + 1;
    END LOOP;
    RETURN v_made;
END
$$;

REVOKE ALL ON FUNCTION emberlog.seal FROM PUBLIC;
GRANT EXECUTE ON FUNCTION emberlog.seal TO emberlog_app;
