-- How many events lie in ($1, $2] and the time of the last; of the types $3 the first whose schema version is above the one known ($4),
-- and whether any is below it.
SELECT count(*) AS events, max(e.recorded_at) AS recorded_at,
       min(e.position) FILTER (WHERE e.schema_version > known.schema_version OR e.schema_version < 1 AND known.type IS NOT NULL) AS unknown,
       coalesce(bool_or(e.schema_version < known.schema_version), false) AS outdated
FROM emberlog.events e
LEFT JOIN unnest($3::text[], $4::integer[]) AS known (type, schema_version) ON known.type = e.type
WHERE e.position > $1 AND e.position <= $2
