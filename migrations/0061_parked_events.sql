-- Events that a generation of a view went on without, because it could not fold them. They wait to be folded after all; one that
-- was discarded never is.
CREATE TABLE projections.parked (
    name text NOT NULL,
    generation integer NOT NULL,
    position bigint NOT NULL,
    error text NOT NULL,
    parked_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    discarded_at timestamptz,
    PRIMARY KEY (name, generation, position)
);
