-- Decides for many requests, in order: each gets all that it claims of its buckets, or nothing is taken for it. The arithmetic is that of
-- domain/rate_buckets.py.
--
-- p_buckets are different from each other, p_limits theirs a minute, p_lacking what each lacks if it is not here. p_claims says for each request how many claims it makes; p_numbers and
-- p_amounts say for each claim the number of its bucket and how much. Answers for each request 1 or 0, then what each of its buckets lacks.
CREATE FUNCTION emberlog.take_buckets(
    p_buckets text[], p_limits bigint[], p_lacking bigint[], p_claims integer[], p_numbers integer[], p_amounts bigint[]
) RETURNS bigint[]
LANGUAGE plpgsql VOLATILE
SET search_path = pg_catalog, pg_temp
SET lock_timeout = '1s'
AS $$
DECLARE
    c_scale CONSTANT bigint := 60000;
    v_now bigint;
    v_lacking bigint[];
    v_answer bigint[] := '{}';
    v_first integer := 1;
    v_admitted boolean;
BEGIN
    -- Every bucket is there and locked, in one order for everybody: calls wait for each other and never in a circle.
    INSERT INTO emberlog.rate_buckets AS b (bucket, lacking, at)
    SELECT wanted, 0, 0 FROM unnest(p_buckets) wanted ORDER BY wanted COLLATE "C"
    ON CONFLICT (bucket) DO UPDATE SET at = b.at WHERE false;

    v_now := floor(extract(epoch FROM clock_timestamp()) * 1000);
    SELECT array_agg(
        CASE
            WHEN v_now - b.at >= c_scale THEN least(w.lacking, w.per_minute * c_scale)
            ELSE greatest(0, least(b.lacking, w.per_minute * c_scale) - w.per_minute * greatest(0, v_now - b.at))
        END
        ORDER BY w.n
    ) INTO v_lacking
    FROM unnest(p_buckets, p_limits, p_lacking) WITH ORDINALITY w (bucket, per_minute, lacking, n)
    JOIN emberlog.rate_buckets b USING (bucket);

    FOR r IN 1 .. cardinality(p_claims) LOOP
        v_admitted := true;
        FOR c IN v_first .. v_first + p_claims[r] - 1 LOOP
            IF v_lacking[p_numbers[c]] + p_amounts[c] * c_scale > p_limits[p_numbers[c]] * c_scale THEN
                v_admitted := false;
                EXIT;
            END IF;
        END LOOP;
        v_answer := v_answer || v_admitted::integer::bigint;
        FOR c IN v_first .. v_first + p_claims[r] - 1 LOOP
            IF v_admitted THEN
                v_lacking[p_numbers[c]] := v_lacking[p_numbers[c]] + p_amounts[c] * c_scale;
            END IF;
            v_answer := v_answer || v_lacking[p_numbers[c]];
        END LOOP;
        v_first := v_first + p_claims[r];
    END LOOP;

    UPDATE emberlog.rate_buckets b SET lacking = w.lacking, at = v_now
    FROM unnest(p_buckets, v_lacking) w (bucket, lacking)
    WHERE b.bucket = w.bucket;
    RETURN v_answer;
END
$$;
REVOKE ALL ON FUNCTION emberlog.take_buckets FROM PUBLIC;
GRANT EXECUTE ON FUNCTION emberlog.take_buckets TO emberlog_app;
