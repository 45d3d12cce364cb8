SELECT position, event_id, tenant, stream, type, data::text AS data
FROM emberlog.events
ORDER BY position
