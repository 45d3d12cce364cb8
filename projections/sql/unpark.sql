-- Takes the event at $3 off the list of projection $1, generation $2, if it waits there.
DELETE FROM projections.parked WHERE name = $1 AND generation = $2 AND position = $3 AND discarded_at IS NULL RETURNING position
