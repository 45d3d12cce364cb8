-- The seals: a hash chain over the log's events, made beside the appends. Seal N covers the positions after seal N-1's.
-- `events_hash` is the SHA-256 of the events' content hashes back to back, `hash` what `emberlog.seal_hash` says. `marks` holds
-- the first four bytes of each content hash: of an event that was rewritten together with its hash they tell which one it is.
CREATE TABLE emberlog.seals (
    number bigint PRIMARY KEY,
    first_position bigint NOT NULL UNIQUE,
    last_position bigint NOT NULL,
    sealed_at timestamptz NOT NULL,
    previous bytea NOT NULL,
    events_hash bytea NOT NULL,
    hash bytea NOT NULL,
    marks bytea NOT NULL,
    CHECK (number > 0 AND last_position >= first_position),
    CHECK (octet_length(previous) = 32 AND octet_length(events_hash) = 32 AND octet_length(hash) = 32),
    CHECK (octet_length(marks) = 4 * (last_position - first_position + 1))
);
ALTER TABLE emberlog.seals ALTER COLUMN marks SET STORAGE EXTERNAL;  -- random bytes: compressing them is lost work

SELECT emberlog.guard_events('emberlog.seals');
