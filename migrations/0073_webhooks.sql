-- What webhooks need beside the log. Secrets are sealed with the tenant's key (the installation's webhooks: that of `_system`), so that
-- they are gone with it; after a rotation the one before signs until `expires_at`. A webhook's cursor says up to which position of the
-- log its deliveries have been put down.
CREATE TABLE emberlog.webhook_secrets (
    webhook text NOT NULL,
    number integer NOT NULL,
    tenant text NOT NULL,
    sealed bytea NOT NULL,
    created_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    expires_at timestamptz,
    PRIMARY KEY (webhook, number)
);
CREATE TABLE emberlog.webhook_cursors (
    webhook text PRIMARY KEY,
    position bigint NOT NULL
);

-- One row for each event that goes to a webhook: `pending` until it was taken there, then `delivered` for a day; `dead` after the last
-- try, for a person to look at. `next_at` is when it is tried next, also where a try is under way: one whose process dies is due again.
-- `attempts` counts the tries since it was put down or put back, `tries` all of them.
CREATE TABLE emberlog.deliveries (
    webhook text NOT NULL,
    position bigint NOT NULL,
    tenant text NOT NULL,
    type text NOT NULL,
    event_id uuid NOT NULL,
    state text NOT NULL DEFAULT 'pending' CHECK (state IN ('pending', 'delivered', 'dead')),
    attempts integer NOT NULL DEFAULT 0,
    tries integer NOT NULL DEFAULT 0,
    created_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    next_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    ended_at timestamptz,
    last_at timestamptz,
    last_status integer,
    last_reason text,
    last_ms integer,
    PRIMARY KEY (webhook, position)
) WITH (fillfactor = 80);
CREATE INDEX deliveries_due ON emberlog.deliveries (webhook, next_at, position) WHERE state = 'pending';
CREATE INDEX deliveries_ended ON emberlog.deliveries (state, ended_at) WHERE state <> 'pending';
GRANT SELECT, INSERT, UPDATE, DELETE ON emberlog.webhook_secrets, emberlog.webhook_cursors, emberlog.deliveries TO emberlog_app;
