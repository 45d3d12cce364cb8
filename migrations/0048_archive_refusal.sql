-- Why the partition with these positions cannot be archived now; null when it can. Views read on through the archive, so none has to
-- have passed; only `requests` must, for it tells whether an attempt waits for an outcome: the reconciler looks that up in the table.
-- Whether one does the archiver asks as the application, which owns the views: reading one as the owner would run whatever is in it.
CREATE FUNCTION emberlog.archive_refusal(p_first bigint, p_last bigint) RETURNS text
LANGUAGE plpgsql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    v_head record;
    v_last_at timestamptz;
    v_known bigint;
BEGIN
    v_head := emberlog.head();
    SELECT e.recorded_at INTO v_last_at FROM emberlog.events e WHERE e.position = p_last;
    SELECT c.position INTO v_known FROM projections.cursors c WHERE c.name = 'requests' AND c.state = 'live';
    RETURN CASE
        WHEN NOT EXISTS (SELECT FROM emberlog.event_partitions p WHERE p.lower_bound = p_first AND p.upper_bound = p_last + 1)
            THEN 'they are no partition'
        WHEN p_first <> coalesce((SELECT max(s.last_position) FROM emberlog.segments s), 0) + 1 THEN 'older ones come first'
        WHEN v_head.position <= p_last OR v_last_at IS NULL THEN 'their partition is not full, or holds the newest event'
        WHEN v_last_at > least(v_head.recorded_at, clock_timestamp()) - interval '3 days' THEN 'they are younger than 3 days'
        WHEN p_last > coalesce((SELECT max(s.last_position) FROM emberlog.seals s), 0) THEN 'they are not sealed'
        WHEN coalesce(v_known, 0) < p_last
            THEN 'the view requests has not folded them all, and tells which are open: see that a gateway runs, and why the view stands'
    END;
END
$$;

REVOKE ALL ON FUNCTION emberlog.archive_refusal FROM PUBLIC;
