-- Seals $1 < number <= $2 in order, with the marks of those that reach position $3.
SELECT number, first_position, last_position, emberlog.micros(sealed_at), previous, events_hash, hash,
       CASE WHEN last_position >= $3 THEN marks ELSE ''::bytea END
FROM emberlog.seals
WHERE number > $1 AND number <= $2
ORDER BY number
LIMIT 50
