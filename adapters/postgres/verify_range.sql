-- What the checks need to know of the events $1 to $2: see `Digest`. One pass over them in the order of their positions.
SELECT count(*),
       min($1 + nth - 1) FILTER (WHERE position <> $1 + nth - 1),
       min(position) FILTER (WHERE changed),
       min(position) FILTER (WHERE recorded_at < before),
       coalesce(string_agg(content_hash, ''::bytea ORDER BY position), ''::bytea),
       emberlog.micros(min(recorded_at) FILTER (WHERE nth = 1)),
       emberlog.micros(max(recorded_at) FILTER (WHERE later IS NULL))
FROM (
    SELECT e.position, e.recorded_at, e.content_hash,
           e.content_hash IS DISTINCT FROM emberlog.content_hash(e.position, e.event_id, e.tenant, e.stream, e.version, e.type,
               e.schema_version, emberlog.micros(e.recorded_at), e.data) AS changed,
           row_number() OVER (ORDER BY e.position) AS nth,
           lag(e.recorded_at) OVER (ORDER BY e.position) AS before,
           lead(e.position) OVER (ORDER BY e.position) AS later
    FROM emberlog.events e
    WHERE e.position >= $1::bigint AND e.position <= $2::bigint
) events
