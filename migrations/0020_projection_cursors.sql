-- How far each projection has folded the log, and who folds it. A view and its cursor change in one transaction; `fence` grows
-- with every change of owner, so that one who returns late moves nothing. `generation` tells a view from the one being rebuilt
-- beside it. `error` stands while the projection is halted before the event at `failed_position`.
CREATE TABLE projections.cursors (
    name text NOT NULL,
    generation integer NOT NULL DEFAULT 1,
    position bigint NOT NULL DEFAULT 0 CHECK (position >= 0),
    recorded_at timestamptz,
    owner uuid,
    fence bigint NOT NULL DEFAULT 0,
    lease_until timestamptz NOT NULL DEFAULT '-infinity',
    updated_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    error text,
    failed_position bigint,
    failed_at timestamptz,
    PRIMARY KEY (name, generation),
    CHECK ((error IS NULL) = (failed_position IS NULL) AND (error IS NULL) = (failed_at IS NULL))
) WITH (fillfactor = 50);
