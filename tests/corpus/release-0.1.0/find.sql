-- The same two days that `append` probes. Each key is looked up in each day's partition by its primary key.
WITH today AS MATERIALIZED (SELECT emberlog.log_day(h.recorded_at) AS day FROM emberlog.head() h)
SELECT e.position, uuid_send(e.event_id), e.tenant, e.stream, e.version, e.type, e.schema_version,
       timestamptz_send(e.recorded_at), convert_to(e.data::text, 'UTF8'), e.content_hash, k.key
FROM unnest($1::bytea[]) k (key)
CROSS JOIN today
CROSS JOIN LATERAL (VALUES (today.day), (today.day - 1)) days (day)
JOIN emberlog.dedupe_keys d ON d.day = days.day AND d.key = encode(k.key, 'hex')::uuid
JOIN emberlog.events e ON e.position = d.position
