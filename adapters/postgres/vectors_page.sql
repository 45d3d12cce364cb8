SELECT id, metadata, updated_at, {vector} AS embedding
FROM {table}
WHERE id > $1
ORDER BY id
LIMIT $2
