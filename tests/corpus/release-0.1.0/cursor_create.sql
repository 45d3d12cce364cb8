-- The cursor of projection $1, generation $2, at the start of the log, unless there is one.
INSERT INTO projections.cursors (name, generation) VALUES ($1, $2) ON CONFLICT DO NOTHING
