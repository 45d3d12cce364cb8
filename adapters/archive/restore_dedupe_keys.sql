-- The first event of a key holds it.
INSERT INTO emberlog.dedupe_keys (day, key, position, fingerprint)
SELECT day, key, position, fingerprint
FROM unnest($1::integer[], $2::uuid[], $3::bigint[], $4::bytea[]) k (day, key, position, fingerprint)
ORDER BY position
ON CONFLICT DO NOTHING
