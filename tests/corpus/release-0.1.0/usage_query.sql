-- Usage rows of grain $1 (seconds) with their position, in one snapshot: of tenant $2, of buckets from the one that holds $3 on and
-- before $4; null is no limit. Where no row is found one line of nulls still says where the view stands.
SELECT c.position, c.recorded_at, u.*
FROM projections.cursors c
LEFT JOIN projections.usage u
    ON u.grain = $1
    AND ($2::text IS NULL OR u.tenant = $2)
    AND ($3::timestamptz IS NULL OR u.bucket >= date_bin(make_interval(secs => $1), $3, 'epoch'))
    AND ($4::timestamptz IS NULL OR u.bucket < $4)
WHERE c.name = 'usage' AND c.generation = 1
ORDER BY u.bucket, u.tenant COLLATE "C", u.agent COLLATE "C", u.model COLLATE "C", u.provider COLLATE "C"
