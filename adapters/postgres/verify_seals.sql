-- Seals $1 < number <= $2 in order, with the marks of those that reach position $3. Nothing here calls a function of the schema:
-- whoever may change the log could change that too.
SELECT number, first_position, last_position, (extract(epoch FROM sealed_at) * 1000000)::bigint, previous, events_hash, hash,
       CASE WHEN last_position >= $3 THEN marks ELSE ''::bytea END
FROM emberlog.seals
WHERE number > $1 AND number <= $2
ORDER BY number
LIMIT 50
