-- Takes the event at $3 off the list of projection $1, generation $2, if it is on it.
DELETE FROM projections.parked WHERE name = $1 AND generation = $2 AND position = $3 RETURNING position
