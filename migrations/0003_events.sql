-- The log. Positions are dense, 1..N in commit order. `version` numbers the events of a decision stream and is null for facts.
-- There is no default partition: `ensure_partitions` makes them ahead, and `append` makes the next one itself if it must.
CREATE TABLE emberlog.events (
    position bigint NOT NULL,
    event_id uuid NOT NULL,
    tenant text NOT NULL,
    stream text NOT NULL,
    version bigint,
    type text NOT NULL,
    schema_version smallint NOT NULL,
    recorded_at timestamptz NOT NULL,
    data jsonb NOT NULL CONSTRAINT data_is_an_object CHECK (jsonb_typeof(data) = 'object'),
    content_hash bytea NOT NULL,
    PRIMARY KEY (position)
) PARTITION BY RANGE (position);

-- Decision events are few and are read back by every process at start; facts pay for no index but the primary key.
CREATE INDEX events_decisions ON emberlog.events (position) WHERE version IS NOT NULL;
CREATE INDEX events_streams ON emberlog.events (stream, version) WHERE version IS NOT NULL;

-- Where each partition begins and ends: [lower_bound, upper_bound).
CREATE TABLE emberlog.event_partitions (
    lower_bound bigint PRIMARY KEY,
    upper_bound bigint NOT NULL,
    name text NOT NULL UNIQUE,
    created_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    CHECK (upper_bound > lower_bound)
);
