-- What the live generations lack; of projection $1 only, unless that is null.
SELECT p.name AS projection, p.generation, p.position, p.error, p.parked_at, p.discarded_at
FROM projections.parked p
JOIN projections.cursors c ON c.name = p.name AND c.generation = p.generation AND c.state = 'live'
WHERE $1::text IS NULL OR p.name = $1
ORDER BY p.position, p.name
