-- Positions are dense, so a page is a range of them: whatever the statistics say, one or two partitions are opened.
SELECT position, uuid_send(event_id), tenant, stream, version, type, schema_version, timestamptz_send(recorded_at),
       convert_to(data::text, 'UTF8'), content_hash
FROM emberlog.events
WHERE position > $1 AND position <= $1 + $2
ORDER BY position
