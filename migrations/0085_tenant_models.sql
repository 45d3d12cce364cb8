-- The models of each tenant, a row a model, the removed ones too. `position` is that of the event that the row comes from, the newest to
-- speak of this model; `updated_by` who decided it. `state` is `configured`, `enabled`, `disabled` or `removed`; what a removed one was
-- configured as is null. `default_position` is the position of a statement that made the model the default, null where the newest makes
-- it none: the tenant's default is the model with the highest. Limits are quotas, prices are in the price book: not here.
CREATE TABLE projections.tenant_models_1 (
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
);
ALTER TABLE projections.tenant_models_1 OWNER TO emberlog_app;
CREATE VIEW projections.tenant_models AS SELECT * FROM projections.tenant_models_1;
ALTER VIEW projections.tenant_models OWNER TO emberlog_app;
