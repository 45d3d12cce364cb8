SELECT id, metadata, embedding OPERATOR({schema}.<=>) $1::{schema}.vector::{schema}.{type} AS distance
FROM {table}
WHERE {filter}
ORDER BY {order}
LIMIT $2
