-- Events that left the table for a file: which positions each segment file holds, and the digests it is checked by. A file is a
-- row of gzip members: member n holds the positions from member_positions[n] on, begins at byte member_offsets[n] and has the
-- SHA-256 member_hashes[n], so that one can be read and checked alone. Segments follow each other without a gap, from position 1.
CREATE TABLE emberlog.segments (
    first_position bigint PRIMARY KEY,
    last_position bigint NOT NULL UNIQUE,
    first_recorded_at timestamptz NOT NULL,
    last_recorded_at timestamptz NOT NULL,
    file text NOT NULL UNIQUE,
    bytes bigint NOT NULL CHECK (bytes > 0),
    sha256 bytea NOT NULL CHECK (octet_length(sha256) = 32),
    member_positions bigint[] NOT NULL,
    member_offsets bigint[] NOT NULL,
    member_hashes bytea[] NOT NULL,
    archived_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    CHECK (first_position > 0 AND last_position >= first_position),
    CHECK (member_positions[1] = first_position AND member_offsets[1] = 0),
    CHECK (cardinality(member_offsets) = cardinality(member_positions)
           AND cardinality(member_hashes) = cardinality(member_positions))
);

SELECT emberlog.guard_events('emberlog.segments');
