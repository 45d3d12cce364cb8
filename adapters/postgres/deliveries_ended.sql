-- Notes the outcome of the try $3 of the delivery ($1, $2): its state $4, when it is tried next ($5 from now), and what the try was like.
UPDATE emberlog.deliveries
SET state = $4, attempts = attempts + 1, next_at = clock_timestamp() + $5::interval, last_status = $6, last_reason = $7, last_ms = $8,
    ended_at = CASE WHEN $4 <> 'pending' THEN clock_timestamp() END
WHERE webhook = $1 AND position = $2 AND tries = $3 AND state = 'pending'
RETURNING true
