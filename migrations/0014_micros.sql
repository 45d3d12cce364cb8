-- A timestamp as microseconds since 1970-01-01 UTC.
CREATE FUNCTION emberlog.micros(p_time timestamptz) RETURNS bigint
LANGUAGE sql STABLE PARALLEL SAFE
AS $$ SELECT (extract(epoch FROM p_time) * 1000000)::bigint $$;
