-- Extends the lease on the work $1 held with the fence $2 by the time $3, and notes the position $4 unless it is further.
UPDATE emberlog.followers SET lease_until = clock_timestamp() + $3::interval, position = greatest(position, $4::bigint)
WHERE name = $1 AND fence = $2 AND owner IS NOT NULL
RETURNING true
