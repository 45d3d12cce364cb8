-- The day that dedupe keys arriving now belong to: that of the clock, but never before that of the newest event. When the
-- clock jumps back, keys go on under the newer day and are still found.
CREATE FUNCTION emberlog.log_day(p_newest timestamptz) RETURNS integer
LANGUAGE sql VOLATILE
AS $$ SELECT floor(extract(epoch FROM greatest(p_newest, clock_timestamp())) / 86400)::integer $$;
