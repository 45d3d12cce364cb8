-- The catalogue of models, a row a model, the removed ones too. The positions are those of the events that a row's parts come from: the
-- newest to state its facts, its place in the lifecycle (`state`), and what a validation found; null where none did. `provider` is the first
-- that offers it; `offerings` are all, as the events have them. `is_available`: requests can have it; `deprecation_date` is when the grace
-- period of a deprecated one ends. Prices are not here: which one holds depends on the time.
CREATE TABLE projections.model_catalog_1 (
    model text NOT NULL,
    created_at timestamptz,
    updated_at timestamptz NOT NULL,
    facts_position bigint,
    name text,
    model_version text,
    provider text,
    type text,
    model_type text,
    dimensions bigint,
    min_dimensions bigint,
    max_tokens bigint,
    unit boolean,
    tokenizer text,
    rank bigint,
    aliases jsonb,
    capabilities jsonb,
    supports_binary boolean,
    supports_dimensionality_reduction boolean,
    minimum_tier text,
    owned_by text,
    offerings jsonb,
    origin text,
    state_position bigint,
    state text,
    is_available boolean,
    is_deprecated boolean,
    deprecation_date timestamptz,
    reason text,
    validated_position bigint,
    validated_at timestamptz,
    validation_passed boolean,
    validation_endpoint text,
    validation_problems jsonb,
    PRIMARY KEY (model)
);
ALTER TABLE projections.model_catalog_1 OWNER TO emberlog_app;
CREATE VIEW projections.model_catalog AS SELECT * FROM projections.model_catalog_1;
ALTER VIEW projections.model_catalog OWNER TO emberlog_app;
