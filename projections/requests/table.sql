-- One generation of the requests view; its columns are described in migrations/0023_requests.sql. The reconciler looks for open
-- attempts, pruning for old ones.
CREATE TABLE {table} (
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
CREATE INDEX ON {table} USING brin ((coalesce(outcome_at, requested_at)));
CREATE INDEX ON {table} (requested_position) WHERE state = 'open'
