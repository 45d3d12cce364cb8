-- Forgets attempts whose last event is more than 30 days older than $1, the time of the newest event folded. By the log's time
-- and not the clock's, so that a rebuilt view equals the live one.
DELETE FROM projections.requests WHERE coalesce(outcome_at, requested_at) < $1::timestamptz - interval '30 days'
