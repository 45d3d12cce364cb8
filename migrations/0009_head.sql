-- The newest event's position and time; position 0 and a null time when the log is empty.
-- Two partitions are kept ahead, so the newest event is found in the third from the top at the latest and the others need not
-- be opened. Where that does not hold (the log is young, or partitions were made by hand) the whole table is asked.
CREATE FUNCTION emberlog.head(OUT "position" bigint, OUT recorded_at timestamptz)
LANGUAGE plpgsql STABLE SECURITY DEFINER
SET search_path = pg_catalog
SET enable_seqscan = off SET enable_bitmapscan = off SET enable_sort = off SET jit = off
AS $$
DECLARE
    v_floor bigint;
BEGIN
    SELECT p.lower_bound INTO v_floor FROM emberlog.event_partitions p ORDER BY p.lower_bound DESC OFFSET 2 LIMIT 1;
    IF v_floor IS NOT NULL THEN
        SELECT e.position, e.recorded_at INTO head.position, head.recorded_at
        FROM emberlog.events e WHERE e.position >= v_floor ORDER BY e.position DESC LIMIT 1;
    END IF;
    IF head.position IS NULL THEN
        SELECT e.position, e.recorded_at INTO head.position, head.recorded_at
        FROM emberlog.events e ORDER BY e.position DESC LIMIT 1;
    END IF;
    head.position := coalesce(head.position, 0);
END
$$;
