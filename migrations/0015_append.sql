-- Appends a batch in one round trip. Each event has its own outcome; only data that Postgres cannot take fails the whole call.
--
-- Arguments are columns of the batch: keys and event ids as 16 bytes each, back to back; texts joined by the record separator
-- (U+001E), which no JSON text and no valid name contains, so that one event's value cannot become another's. Fingerprints are
-- hex, empty for none. Null stands for: no fingerprint at all, every schema version 1, facts only. Measured against arrays and
-- one JSON document, this form costs the client least.
--
-- Returned: `first_position`, and three arrays by event, all null when every event was appended, densely, as a fact.
-- Statuses: 0 appended, 1 duplicate, 2 mismatch (the key is taken with another fingerprint), 3 version conflict.
--
-- The lock makes commit order and position order one: nobody else takes a position before this transaction is visible. Plans
-- are fixed (index probes, one plan for every batch), so that neither missing statistics nor growth changes them.
CREATE FUNCTION emberlog.append(
    p_instance uuid,
    p_keys bytea,
    p_event_ids bytea,
    p_tenants text,
    p_streams text,
    p_types text,
    p_data text,
    p_fingerprints text DEFAULT NULL,
    p_schema_versions smallint[] DEFAULT NULL,
    p_expected_versions bigint[] DEFAULT NULL,
    OUT first_position bigint,
    OUT statuses smallint[],
    OUT positions bigint[],
    OUT versions bigint[]
)
LANGUAGE plpgsql VOLATILE SECURITY DEFINER
SET search_path = pg_catalog
SET lock_timeout = '5s'
SET plan_cache_mode = force_generic_plan
SET enable_seqscan = off SET enable_bitmapscan = off SET enable_hashjoin = off SET enable_mergejoin = off SET jit = off
AS $$
DECLARE
    c_separator CONSTANT text := chr(30);
    v_count CONSTANT integer := octet_length(p_keys) / 16;
    v_tenants CONSTANT text[] := string_to_array(p_tenants, c_separator);
    v_streams CONSTANT text[] := string_to_array(p_streams, c_separator);
    v_types CONSTANT text[] := string_to_array(p_types, c_separator);
    v_data CONSTANT text[] := string_to_array(p_data, c_separator);
    v_fingerprints CONSTANT text[] := string_to_array(p_fingerprints, c_separator);
    v_keys uuid[];
    v_head bigint;
    v_newest timestamptz;
    v_micros bigint;
    v_day integer;
    v_upper bigint;
    v_known_items bigint[];
    v_known_positions bigint[];
    v_known_fingerprints bytea[];
    v_ranks bigint[];  -- per event its place among those written, null where it is not; null as a whole when all are
    v_item record;
    v_at integer;
    v_version bigint;
    v_written_keys uuid[] := '{}';
    v_written_items integer[] := '{}';
    v_first_items integer[];
    v_touched text[] := '{}';
    v_touched_versions bigint[] := '{}';
BEGIN
    IF current_setting('transaction_isolation') <> 'read committed' THEN
        RAISE EXCEPTION 'append needs isolation level read committed, not %', current_setting('transaction_isolation')
            USING ERRCODE = 'EL003', HINT = 'A snapshot taken before the lock would not see the events of the last holder.';
    END IF;
    IF (cardinality(v_tenants), cardinality(v_streams), cardinality(v_types), cardinality(v_data), octet_length(p_event_ids))
            IS DISTINCT FROM (v_count, v_count, v_count, v_count, v_count * 16)
        OR cardinality(v_fingerprints) <> v_count OR cardinality(p_schema_versions) <> v_count
        OR cardinality(p_expected_versions) <> v_count
        OR '' = ANY (v_tenants) OR '' = ANY (v_streams) OR '' = ANY (v_types) OR '' = ANY (v_data) THEN
        RAISE EXCEPTION 'tenant, stream, type and data must not be empty, and no value may hold the character U+001E'
            USING ERRCODE = 'data_exception';
    END IF;

    PERFORM emberlog.lock_log();
    PERFORM FROM emberlog.instances i WHERE i.id = p_instance AND i.fenced_at IS NULL;
    IF NOT FOUND THEN
        RAISE EXCEPTION 'instance % is fenced or unknown', p_instance
            USING ERRCODE = 'EL001', HINT = 'Register a new instance; what this one had open belongs to others now.';
    END IF;

    SELECT h.position, h.recorded_at INTO v_head, v_newest FROM emberlog.head() h;
    v_newest := greatest(v_newest, clock_timestamp());
    v_micros := emberlog.micros(v_newest);
    v_day := emberlog.log_day(v_newest);
    SELECT p.upper_bound INTO v_upper FROM emberlog.event_partitions p ORDER BY p.lower_bound DESC LIMIT 1;
    IF v_upper IS NULL OR v_head + v_count >= v_upper OR to_regclass('emberlog.dedupe_keys_' || v_day) IS NULL THEN
        PERFORM emberlog.ensure_partitions(p_reach => v_head + v_count);
    END IF;

    SELECT array_agg(encode(substr(p_keys, n * 16 - 15, 16), 'hex')::uuid) INTO v_keys FROM generate_series(1, v_count) n;
    -- LIMIT keeps each probe a probe: a join planned while the partition was empty may read all of it for each batch.
    SELECT array_agg(k.item), array_agg(k.position), array_agg(k.fingerprint)
    INTO v_known_items, v_known_positions, v_known_fingerprints
    FROM (
        SELECT b.item, d.position, d.fingerprint
        FROM unnest(v_keys) WITH ORDINALITY b (key, item)
        CROSS JOIN LATERAL (SELECT * FROM emberlog.dedupe_keys h WHERE h.day = v_day AND h.key = b.key LIMIT 1) d
        UNION ALL
        SELECT b.item, d.position, d.fingerprint
        FROM unnest(v_keys) WITH ORDINALITY b (key, item)
        CROSS JOIN LATERAL (SELECT * FROM emberlog.dedupe_keys h WHERE h.day = v_day - 1 AND h.key = b.key LIMIT 1) d
    ) k;

    -- The usual batch, of facts never seen, skips this: only events that need a decision are looked at one by one.
    IF v_known_items IS NOT NULL OR p_expected_versions IS NOT NULL
            OR (SELECT count(DISTINCT key) FROM unnest(v_keys) key) < v_count THEN
        statuses := array_fill(0::smallint, ARRAY[v_count]);
        positions := array_fill(NULL::bigint, ARRAY[v_count]);
        versions := array_fill(NULL::bigint, ARRAY[v_count]);
        v_first_items := array_fill(NULL::integer, ARRAY[v_count]);
        FOR v_item IN
            SELECT b.item::integer AS item, b.key, k.position,
                   k.position IS NOT NULL AND k.fingerprint <> decode(nullif(v_fingerprints[b.item], ''), 'hex') AS differs,
                   v_streams[b.item] AS stream, p_expected_versions[b.item] AS expected
            FROM (
                SELECT u.key, u.item, count(*) OVER (PARTITION BY u.key) AS copies
                FROM unnest(v_keys) WITH ORDINALITY u (key, item)
            ) b
            LEFT JOIN unnest(v_known_items, v_known_positions, v_known_fingerprints) k (item, position, fingerprint)
                ON k.item = b.item
            WHERE k.item IS NOT NULL OR b.copies > 1 OR p_expected_versions[b.item] IS NOT NULL
            ORDER BY b.item
        LOOP
            IF v_item.position IS NOT NULL THEN
                statuses[v_item.item] := 1 + coalesce(v_item.differs, false)::integer;
                positions[v_item.item] := v_item.position;
                SELECT e.version INTO v_version FROM emberlog.events e WHERE e.position = v_item.position;
                versions[v_item.item] := v_version;
                CONTINUE;
            END IF;
            v_at := v_written_items[array_position(v_written_keys, v_item.key)];
            IF v_at IS NOT NULL THEN
                -- Empty fingerprints never differ.
                statuses[v_item.item] := 1 + coalesce(
                    nullif(v_fingerprints[v_at], '') <> nullif(v_fingerprints[v_item.item], ''), false)::integer;
                v_first_items[v_item.item] := v_at;
                versions[v_item.item] := versions[v_at];
                CONTINUE;
            END IF;
            IF v_item.expected IS NOT NULL THEN
                v_at := array_position(v_touched, v_item.stream);
                IF v_at IS NULL THEN
                    SELECT s.version INTO v_version FROM emberlog.decision_streams s WHERE s.stream = v_item.stream;
                    v_touched := v_touched || v_item.stream;
                    v_touched_versions := v_touched_versions || coalesce(v_version, 0);
                    v_at := cardinality(v_touched);
                END IF;
                versions[v_item.item] := v_touched_versions[v_at];
                IF v_item.expected NOT IN (-1, v_touched_versions[v_at]) THEN
                    statuses[v_item.item] := 3;
                    CONTINUE;
                END IF;
                v_touched_versions[v_at] := v_touched_versions[v_at] + 1;
                versions[v_item.item] := v_touched_versions[v_at];
            END IF;
            v_written_keys := v_written_keys || v_item.key;
            v_written_items := v_written_items || v_item.item;
        END LOOP;

        SELECT array_agg(CASE WHEN r.status = 0 THEN r.rank END ORDER BY r.item) INTO v_ranks
        FROM (
            SELECT s.status, s.item, count(*) FILTER (WHERE s.status = 0) OVER (ORDER BY s.item) AS rank
            FROM unnest(statuses) WITH ORDINALITY s (status, item)
        ) r;
        SELECT array_agg(coalesce(p.position, v_head + coalesce(v_ranks[p.item], v_ranks[v_first_items[p.item]])) ORDER BY p.item)
        INTO positions FROM unnest(positions) WITH ORDINALITY p (position, item);
        INSERT INTO emberlog.decision_streams (stream, version)
        SELECT t.stream, t.version FROM unnest(v_touched, v_touched_versions) t (stream, version) WHERE t.version > 0
        ON CONFLICT (stream) DO UPDATE SET version = excluded.version WHERE decision_streams.version <> excluded.version;
    END IF;

    INSERT INTO emberlog.events
        (position, event_id, tenant, stream, version, type, schema_version, recorded_at, data, content_hash)
    SELECT e.position, e.event_id, e.tenant, e.stream, e.version, e.type, e.schema_version, v_newest, e.data,
           emberlog.content_hash(e.position, e.event_id, e.tenant, e.stream, e.version, e.type, e.schema_version, v_micros, e.data)
    FROM (
        SELECT v_head + coalesce(v_ranks[b.item], b.item) AS position,
               encode(substr(p_event_ids, b.item::integer * 16 - 15, 16), 'hex')::uuid AS event_id,
               b.tenant, b.stream, versions[b.item] AS version, b.type,
               coalesce(p_schema_versions[b.item], 1::smallint) AS schema_version, b.data::jsonb AS data
        FROM unnest(v_tenants, v_streams, v_types, v_data) WITH ORDINALITY b (tenant, stream, type, data, item)
        WHERE v_ranks IS NULL OR v_ranks[b.item] IS NOT NULL
        OFFSET 0  -- keeps the columns from being computed again for the hash
    ) e;
    INSERT INTO emberlog.dedupe_keys (day, key, position, fingerprint)
    SELECT v_day, b.key, v_head + coalesce(v_ranks[b.item], b.item), decode(nullif(b.fingerprint, ''), 'hex')
    FROM unnest(v_keys, v_fingerprints) WITH ORDINALITY b (key, fingerprint, item)
    WHERE v_ranks IS NULL OR v_ranks[b.item] IS NOT NULL;
    first_position := v_head + 1;
END
$$;
