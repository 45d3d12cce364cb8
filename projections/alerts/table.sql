-- One generation of the alerts view; its columns are described in migrations/0075_alerts.sql.
CREATE TABLE {table} (
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
CREATE INDEX ON {table} (tenant, raised_position) WHERE resolved_position IS NULL;
CREATE INDEX ON {table} (raised_position);
CREATE INDEX ON {table} (resolved_position)
