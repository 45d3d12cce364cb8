-- Processes that append. `fenced_head` is the log's head at the moment of fencing: nothing of the instance lies behind it.
CREATE TABLE emberlog.instances (
    id uuid PRIMARY KEY DEFAULT gen_random_uuid(),
    description text NOT NULL,
    registered_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    lease_until timestamptz NOT NULL,
    fenced_at timestamptz,
    fenced_head bigint,
    CHECK ((fenced_at IS NULL) = (fenced_head IS NULL))
);
CREATE INDEX instances_alive ON emberlog.instances (lease_until) WHERE fenced_at IS NULL;
