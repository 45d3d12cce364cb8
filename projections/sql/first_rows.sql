-- The first $2 of {rows} in the order of {key}; $1 is the time of the newest event folded. json, not jsonb: it keeps the columns' order.
SELECT row_to_json(v) AS row FROM ({rows}) v ORDER BY {key} LIMIT $2
