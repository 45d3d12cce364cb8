INSERT INTO {table} (id, embedding, metadata)
SELECT r.id, r.embedding, r.metadata
FROM unnest($1::text[], $2::{schema}.vector[], $3::jsonb[]) AS r (id, embedding, metadata)
ORDER BY r.id -- so that two writers of the same rows wait for each other, not both for both
ON CONFLICT (id) DO UPDATE
SET embedding = excluded.embedding, metadata = excluded.metadata, updated_at = clock_timestamp()
