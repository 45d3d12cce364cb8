-- Lets go of the oldest partition, whose events a segment file holds: records the segment, keeps the decision events, drops the
-- table. For the owner alone. Whoever calls it has locked the partition against changes (SHARE) since before it was read, and has
-- checked the file. What `archive_refusal` says is raised as EL005.
-- Readers hold the table for as long as their statement runs: past the timeout this fails, with nothing changed.
CREATE FUNCTION emberlog.archive_partition(
    p_first bigint, p_last bigint, p_file text, p_bytes bigint, p_sha256 bytea,
    p_member_positions bigint[], p_member_offsets bigint[], p_member_hashes bytea[]
) RETURNS void
LANGUAGE plpgsql VOLATILE
SET search_path = pg_catalog, pg_temp
SET lock_timeout = '500ms'
AS $$
DECLARE
    v_name text;
    v_reason text;
BEGIN
    PERFORM emberlog.lock_log();
    v_reason := emberlog.archive_refusal(p_first, p_last);
    IF v_reason IS NOT NULL THEN
        RAISE EXCEPTION 'the events % to % cannot be archived: %', p_first, p_last, v_reason USING ERRCODE = 'EL005';
    END IF;

    INSERT INTO emberlog.segments (first_position, last_position, first_recorded_at, last_recorded_at, file, bytes, sha256,
                                   member_positions, member_offsets, member_hashes)
    VALUES (p_first, p_last, (SELECT e.recorded_at FROM emberlog.events e WHERE e.position = p_first),
            (SELECT e.recorded_at FROM emberlog.events e WHERE e.position = p_last), p_file, p_bytes, p_sha256,
            p_member_positions, p_member_offsets, p_member_hashes);
    INSERT INTO emberlog.archived_decisions
    SELECT e.* FROM emberlog.events e WHERE e.position BETWEEN p_first AND p_last AND e.version IS NOT NULL;
    SELECT p.name INTO v_name FROM emberlog.event_partitions p WHERE p.lower_bound = p_first;
    EXECUTE format('ALTER TABLE emberlog.events DETACH PARTITION emberlog.%I', v_name);
    EXECUTE format('DROP TABLE emberlog.%I', v_name);
    DELETE FROM emberlog.event_partitions WHERE lower_bound = p_first;
END
$$;

REVOKE ALL ON FUNCTION emberlog.archive_partition FROM PUBLIC;
