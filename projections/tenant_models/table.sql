-- One generation of the tenant_models view; its columns are described in migrations/0085_tenant_models.sql.
CREATE TABLE {table} (
    tenant text NOT NULL,
    model_id text NOT NULL,
    position bigint NOT NULL,
    created_at timestamptz NOT NULL,
    updated_at timestamptz NOT NULL,
    updated_by text,
    state text NOT NULL,
    is_enabled boolean NOT NULL,
    default_position bigint,
    priority bigint,
    fallback_models jsonb,
    custom_settings jsonb,
    PRIMARY KEY (tenant, model_id)
)
