-- Whether an attempt that began at or before position $1 waits for its outcome, as far as the view has come.
SELECT EXISTS (SELECT FROM projections.requests WHERE state = 'open' AND requested_position <= $1)
