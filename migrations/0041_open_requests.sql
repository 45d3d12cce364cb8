-- The reconciler asks for open attempts every two seconds; they are few among millions.
CREATE INDEX requests_open ON projections.requests (requested_position) WHERE state = 'open';
