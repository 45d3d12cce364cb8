-- What became of each attempt at a request, for 30 days after its last event. A request id used again after the idempotency
-- window starts its row anew. `requested_*` are null where only the outcome is known, `outcome_*` while the attempt is open.
CREATE TABLE projections.requests (
    tenant text NOT NULL,
    request_id text NOT NULL,
    attempt integer NOT NULL,
    state text NOT NULL CHECK (state IN ('open', 'generated', 'failed', 'abandoned')),
    agent text NOT NULL,
    model text NOT NULL,
    provider text,
    instance text,
    code text,
    requested_position bigint,
    requested_at timestamptz,
    outcome_position bigint,
    outcome_at timestamptz,
    PRIMARY KEY (tenant, request_id, attempt),
    CHECK ((state = 'open') = (outcome_position IS NULL)),
    CHECK (requested_position IS NOT NULL OR outcome_position IS NOT NULL)
) WITH (fillfactor = 80);

-- Rows lie about in the order of their time, and pruning reads whole ranges of it.
CREATE INDEX requests_times ON projections.requests USING brin ((coalesce(outcome_at, requested_at)));
