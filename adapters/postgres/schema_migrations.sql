-- Run before any migration: where they are recorded.
CREATE SCHEMA IF NOT EXISTS emberlog;
CREATE TABLE IF NOT EXISTS emberlog.schema_migrations (
    name text PRIMARY KEY,
    checksum bytea NOT NULL,
    applied_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    after_deploy boolean NOT NULL DEFAULT false
);
-- A table from before there were two kinds. Asked for first: even where the column is there, ALTER TABLE would wait for every reader,
-- and gateways, which read this table to know whether they are ready, behind it.
DO $$
BEGIN
    IF NOT EXISTS (
        SELECT FROM pg_attribute WHERE attrelid = 'emberlog.schema_migrations'::regclass AND attname = 'after_deploy'
    ) THEN
        ALTER TABLE emberlog.schema_migrations ADD COLUMN IF NOT EXISTS after_deploy boolean NOT NULL DEFAULT false;
    END IF;
END
$$;
