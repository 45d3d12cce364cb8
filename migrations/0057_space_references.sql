-- What our probe texts (`probe` is a digest of one) embed to in each vector space: float32, little-endian, written once, when a model was
-- found to be what the catalogue says. Whatever claims to serve the space later is held against it. Not in the log, which has no vectors.
CREATE TABLE emberlog.space_references (
    space text NOT NULL,
    probe bytea NOT NULL CHECK (octet_length(probe) = 16),
    vector bytea NOT NULL,
    recorded_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (space, probe)
);
GRANT SELECT, INSERT ON emberlog.space_references TO emberlog_app;
