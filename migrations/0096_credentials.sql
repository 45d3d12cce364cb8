-- The secrets of credentials for providers, sealed with the tenant's key (those of the installation: with that of `_system`). The revision
-- stands in the key, so that who reads what an event tells of never gets another; a removed credential keeps its last number, without a secret.
CREATE TABLE emberlog.credentials (
    tenant text NOT NULL,
    name text NOT NULL,
    revision bigint NOT NULL,
    provider text NOT NULL,
    sealed bytea,
    created_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (tenant, name, revision)
);
GRANT SELECT, INSERT, UPDATE, DELETE ON emberlog.credentials TO emberlog_app;
