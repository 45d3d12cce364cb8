-- Work that one process of an installation does at a time, following the log: whose it is, by a fenced lease on this server's clock, and
-- how far it has come.
CREATE TABLE emberlog.followers (
    name text PRIMARY KEY,
    position bigint NOT NULL DEFAULT 0,
    owner uuid,
    fence bigint NOT NULL DEFAULT 0,
    lease_until timestamptz NOT NULL DEFAULT '-infinity'
);

-- Subjects (tenants) whose alerts could not be worked out: tried again at `retry_at`, or parked after too many failures, until somebody
-- asks for another try.
CREATE TABLE emberlog.alert_failures (
    subject text PRIMARY KEY,
    failures integer NOT NULL,
    error text NOT NULL,
    failed_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    retry_at timestamptz NOT NULL,
    parked_at timestamptz
);
GRANT SELECT, INSERT, UPDATE, DELETE ON emberlog.followers, emberlog.alert_failures TO emberlog_app;
