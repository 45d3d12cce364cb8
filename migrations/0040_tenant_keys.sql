-- Tenants' keys, wrapped by the installation's key. They stand beside the log, not in it: destroying a row shreds what the key sealed.
CREATE TABLE emberlog.tenant_keys (
    tenant text PRIMARY KEY,
    wrapped bytea NOT NULL,
    created_at timestamptz NOT NULL DEFAULT clock_timestamp()
);
GRANT SELECT, INSERT ON emberlog.tenant_keys TO emberlog_app;
