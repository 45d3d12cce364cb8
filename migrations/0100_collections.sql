-- The vectors that tenants keep, for search: data beside the log, which records only that a collection was made and how many it was sent.
-- Each collection is a table of its own in `vectors`: an index over the vectors of many would lose those of one among the others.
CREATE SCHEMA vectors;
GRANT USAGE ON SCHEMA vectors TO emberlog_app;

DO $$
BEGIN
    IF NOT EXISTS (SELECT FROM pg_extension WHERE extname = 'vector') THEN
        CREATE EXTENSION vector SCHEMA vectors;
    END IF;
    IF NOT EXISTS (SELECT FROM pg_type WHERE typname = 'halfvec') THEN
        RAISE EXCEPTION 'the extension "vector" is older than 0.7'
            USING HINT = 'As a superuser run in this database: ALTER EXTENSION vector UPDATE; then run the migrations again.';
    END IF;
EXCEPTION
    WHEN insufficient_privilege THEN
        RAISE EXCEPTION 'the extension "vector" does not exist and "%" may not create it', current_user
            USING HINT = 'As a superuser run in this database: CREATE EXTENSION vector; then run the migrations again.';
    WHEN undefined_file OR feature_not_supported THEN
        RAISE EXCEPTION 'this Postgres has no extension "vector"'
            USING HINT = 'Install pgvector 0.7 or newer on the server, then run the migrations again.';
END
$$;

-- What became of each collection's table. A row outlives it, so that nobody who has not heard of its end makes it anew.
CREATE TABLE emberlog.collections (
    id text PRIMARY KEY CHECK (id ~ '^[0-9a-f]{32}$'),
    tenant text NOT NULL,
    created_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    dropped_at timestamptz
);
CREATE INDEX collections_kept ON emberlog.collections (tenant) WHERE dropped_at IS NULL;
