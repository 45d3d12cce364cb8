-- Claims up to $2 due deliveries of each webhook $1 for the time $3, the longest due first.
WITH due AS MATERIALIZED (
    SELECT d.webhook, d.position, d.next_at
    FROM unnest($1::text[], $2::integer[]) AS w (webhook, room)
    CROSS JOIN LATERAL (
        SELECT p.webhook, p.position, p.next_at FROM emberlog.deliveries p
        WHERE p.webhook = w.webhook AND p.state = 'pending' AND p.next_at <= clock_timestamp()
        ORDER BY p.next_at, p.position
        LIMIT w.room
        FOR UPDATE SKIP LOCKED
    ) d
), claimed AS (
    UPDATE emberlog.deliveries d SET next_at = clock_timestamp() + $3::interval, last_at = clock_timestamp(), tries = d.tries + 1
    FROM due WHERE d.webhook = due.webhook AND d.position = due.position
    RETURNING d.webhook, d.position, d.attempts, d.tries, d.event_id, due.next_at
)
SELECT webhook, position, attempts, tries, event_id FROM claimed ORDER BY next_at, position
