-- The cursor of the first generation of projection $1, at the start of the log, unless there is a live one.
INSERT INTO projections.cursors (name) VALUES ($1) ON CONFLICT DO NOTHING
