SELECT position, uuid_send(event_id), tenant, stream, version, type, schema_version, timestamptz_send(recorded_at),
       convert_to(data::text, 'UTF8'), content_hash
FROM emberlog.events
WHERE position > $1 AND version IS NOT NULL
ORDER BY position
LIMIT $2
