-- Run before any migration: where they are recorded.
CREATE SCHEMA IF NOT EXISTS emberlog;
CREATE TABLE IF NOT EXISTS emberlog.schema_migrations (
    name text PRIMARY KEY,
    checksum bytea NOT NULL,
    applied_at timestamptz NOT NULL DEFAULT clock_timestamp()
);
