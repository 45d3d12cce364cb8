-- The alerts view: an alert by tenant and id. `limit_value` and `used` are those of a quota; `episode` counts how often it was raised.
-- The positions are those of the newest event of each kind; `acknowledged_*` and `resolved_*` are null unless it came behind the newest
-- raising. `silenced_until` is in seconds since the epoch. Rows are kept: what was raised belongs to the history of an installation.
CREATE TABLE projections.alerts_1 (
    tenant text NOT NULL,
    alert text NOT NULL,
    kind text,
    severity text,
    summary text,
    labels jsonb,
    used bigint,
    limit_value bigint,
    episode integer,
    raised_position bigint,
    raised_at timestamptz,
    acknowledged_position bigint,
    acknowledged_at timestamptz,
    acknowledged_by text,
    silenced_position bigint,
    silenced_until bigint,
    silenced_by text,
    resolved_position bigint,
    resolved_at timestamptz,
    resolved_reason text,
    resolved_by text,
    PRIMARY KEY (tenant, alert)
);
CREATE INDEX ON projections.alerts_1 (tenant, raised_position) WHERE resolved_position IS NULL;
CREATE INDEX ON projections.alerts_1 (raised_position);
CREATE INDEX ON projections.alerts_1 (resolved_position);
ALTER TABLE projections.alerts_1 OWNER TO emberlog_app;
CREATE VIEW projections.alerts AS SELECT * FROM projections.alerts_1;
ALTER VIEW projections.alerts OWNER TO emberlog_app;
