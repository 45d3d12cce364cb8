-- A view is read under its own name and kept in a table per generation, so that another can be built beside it and take its place.
-- `live` is read, `building` is being folded from the start of the log, `retired` is kept to go back to and is owned by nobody.
-- `fold` is a digest of the SQL that folds it: what another release began is not gone on with.
-- Inserting through a view that is a plain selection works, so gateways of the release before this one go on folding.
ALTER TABLE projections.cursors
    ADD COLUMN state text NOT NULL DEFAULT 'live' CHECK (state IN ('live', 'building', 'retired')),
    ADD COLUMN state_since timestamptz NOT NULL DEFAULT clock_timestamp(),
    ADD COLUMN fold bytea,
    ADD CONSTRAINT retired_has_no_owner CHECK (state <> 'retired' OR owner IS NULL);
CREATE UNIQUE INDEX cursors_live ON projections.cursors (name) WHERE state = 'live';
CREATE UNIQUE INDEX cursors_building ON projections.cursors (name) WHERE state = 'building';

-- The application makes the tables of later generations itself, so it owns those of the first, too.
GRANT CREATE ON SCHEMA projections TO emberlog_app;
ALTER TABLE projections.usage RENAME TO usage_1;
ALTER TABLE projections.requests RENAME TO requests_1;
ALTER INDEX projections.usage_pkey RENAME TO usage_1_pkey;
ALTER INDEX projections.requests_pkey RENAME TO requests_1_pkey;
ALTER TABLE projections.usage_1 OWNER TO emberlog_app;
ALTER TABLE projections.requests_1 OWNER TO emberlog_app;
CREATE VIEW projections.usage AS SELECT * FROM projections.usage_1;
CREATE VIEW projections.requests AS SELECT * FROM projections.requests_1;
ALTER VIEW projections.usage OWNER TO emberlog_app;
ALTER VIEW projections.requests OWNER TO emberlog_app;
