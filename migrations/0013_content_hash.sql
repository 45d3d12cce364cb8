-- SHA-256 of an event as it is stored. Hashed is, in UTF-8: position, event id, version ('-' for facts), schema version,
-- recorded_at in microseconds since 1970 UTC, and the octet lengths of tenant, stream and type, separated by single spaces; a
-- space; then tenant, stream, type and Postgres's text form of data, back to back. The lengths make it unambiguous.
-- One SQL expression, so that the planner inlines it.
CREATE FUNCTION emberlog.content_hash(
    p_position bigint, p_event_id uuid, p_tenant text, p_stream text, p_version bigint, p_type text,
    p_schema_version smallint, p_recorded_micros bigint, p_data jsonb
) RETURNS bytea
LANGUAGE sql STABLE PARALLEL SAFE
AS $$
    SELECT sha256(convert_to(
        p_position::text || ' ' || p_event_id::text || ' ' || coalesce(p_version::text, '-') || ' ' || p_schema_version::text
        || ' ' || p_recorded_micros::text || ' ' || octet_length(p_tenant)::text || ' ' || octet_length(p_stream)::text
        || ' ' || octet_length(p_type)::text || ' ' || p_tenant || p_stream || p_type || p_data::text, 'UTF8'))
$$;
