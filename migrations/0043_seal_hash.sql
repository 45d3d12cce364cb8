-- The hash of a seal: SHA-256 of the hash before it (for the first, the SHA-256 of the installation's 16 bytes), its first and last
-- position and its time in microseconds since 1970 UTC as big-endian 8-byte integers, and the hash of its events.
CREATE FUNCTION emberlog.seal_hash(
    p_previous bytea, p_first bigint, p_last bigint, p_sealed_micros bigint, p_events_hash bytea
) RETURNS bytea
LANGUAGE sql IMMUTABLE PARALLEL SAFE
AS $$ SELECT sha256(p_previous || int8send(p_first) || int8send(p_last) || int8send(p_sealed_micros) || p_events_hash) $$;

REVOKE ALL ON FUNCTION emberlog.seal_hash FROM PUBLIC;
GRANT EXECUTE ON FUNCTION emberlog.seal_hash TO emberlog_app;
