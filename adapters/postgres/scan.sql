-- The columns of read.sql, of the events in ($1, $2] that pass the filters ($3 tenants, $4 types, $5 streams; null lets all pass).
SELECT position, uuid_send(event_id), tenant, stream, version, type, schema_version, timestamptz_send(recorded_at),
       convert_to(data::text, 'UTF8'), content_hash
FROM emberlog.events
WHERE position > $1 AND position <= $2
    AND ($3::text[] IS NULL OR tenant = ANY ($3))
    AND ($4::text[] IS NULL OR type = ANY ($4))
    AND ($5::text[] IS NULL OR stream = ANY ($5))
ORDER BY position
LIMIT $6
