-- The cursor of a new generation of projection $1 that is folded as $2 says, at the start of the log; numbered above $3.
INSERT INTO projections.cursors (name, generation, state, fold)
SELECT $1, greatest(max(generation), $3) + 1, 'building', $2 FROM projections.cursors WHERE name = $1
RETURNING generation
