-- Takes the work $1 for $2 for the time $3 unless another has it; the fence, which grows with each owner.
INSERT INTO emberlog.followers AS f (name, owner, fence, lease_until) VALUES ($1, $2, 1, clock_timestamp() + $3::interval)
ON CONFLICT (name) DO UPDATE SET owner = $2, fence = f.fence + 1, lease_until = clock_timestamp() + $3::interval
WHERE f.lease_until < clock_timestamp()
RETURNING fence
