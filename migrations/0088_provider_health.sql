-- The provider_health view. Of each endpoint and model (`space` '') what requests met there: those that it answered with at least one vector,
-- and how long its calls took them in all; failed attempts by reason, those of other reasons in `failed_attempts` alone, and the time they
-- took; `failovers` counts the requests that went on elsewhere because of it. Of each endpoint by itself (`model` and `space` '') its
-- circuit, health and deployment by the newest event of each, whichever process told it. Of each endpoint, model and space whether it was
-- `attested`, or drifted (false); `cosine_min` is in millionths. Rows are kept.
CREATE TABLE projections.provider_health_1 (
    endpoint text NOT NULL,
    model text NOT NULL,
    space text NOT NULL,
    answered bigint NOT NULL,
    latency_ms bigint NOT NULL,
    failed_attempts bigint NOT NULL,
    timeouts bigint NOT NULL,
    connection_errors bigint NOT NULL,
    server_errors bigint NOT NULL,
    rate_limited bigint NOT NULL,
    authentication_errors bigint NOT NULL,
    refused bigint NOT NULL,
    bad_answers bigint NOT NULL,
    circuit_open bigint NOT NULL,
    drifted bigint NOT NULL,
    unattested bigint NOT NULL,
    failed_ms bigint NOT NULL,
    failovers bigint NOT NULL,
    success_position bigint,
    success_at timestamptz,
    failure_position bigint,
    failure_at timestamptz,
    circuit text,
    circuit_position bigint,
    circuit_at timestamptz,
    circuit_reason text,
    health text,
    health_position bigint,
    health_at timestamptz,
    health_reason text,
    deployment text,
    deployment_position bigint,
    deployment_at timestamptz,
    attested boolean,
    attested_position bigint,
    attested_at timestamptz,
    cosine_min integer,
    PRIMARY KEY (endpoint, model, space)
);
ALTER TABLE projections.provider_health_1 OWNER TO emberlog_app;
CREATE VIEW projections.provider_health AS SELECT * FROM projections.provider_health_1;
ALTER VIEW projections.provider_health OWNER TO emberlog_app;
