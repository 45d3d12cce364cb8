SELECT position FROM emberlog.events
WHERE position BETWEEN $1 AND $2
    AND content_hash <> emberlog.content_hash(position, event_id, tenant, stream, version, type, schema_version,
                                              emberlog.micros(recorded_at), data)
ORDER BY position
LIMIT 1
