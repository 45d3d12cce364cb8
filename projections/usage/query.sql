-- Usage rows of grain $1 (seconds): of tenant $2, of buckets from the one that holds $3 on and before $4, of agent $5, at most $6; null is no
-- limit. With them, in one snapshot, where the view stands ({standing} gives `position` and `recorded_at`), which one line of nulls says
-- where no row is found.
SELECT c.position, c.recorded_at, u.*
FROM ({standing}) c
LEFT JOIN {table} u
    ON u.grain = $1
    AND ($2::text IS NULL OR u.tenant = $2)
    AND ($3::timestamptz IS NULL OR u.bucket >= date_bin(make_interval(secs => $1), $3, 'epoch'))
    AND ($4::timestamptz IS NULL OR u.bucket < $4)
    AND ($5::text IS NULL OR u.agent = $5)
ORDER BY u.bucket, u.tenant COLLATE "C", u.agent COLLATE "C", u.model COLLATE "C", u.provider COLLATE "C"
LIMIT $6
