-- Notes that projection $1, generation $2 goes on without the event at $3, because of $4; $5 where it was discarded before.
INSERT INTO projections.parked (name, generation, position, error, discarded_at) VALUES ($1, $2, $3, $4, $5)
ON CONFLICT (name, generation, position) DO UPDATE SET error = excluded.error
