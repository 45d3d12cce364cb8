-- How many events lie in ($1, $2], the time of the last, and the first whose schema version is not the one known of its type.
SELECT count(*) AS events, max(e.recorded_at) AS recorded_at,
       min(e.position) FILTER (WHERE e.schema_version <> known.schema_version) AS unknown
FROM emberlog.events e
LEFT JOIN unnest($3::text[], $4::integer[]) AS known (type, schema_version) ON known.type = e.type
WHERE e.position > $1 AND e.position <= $2
