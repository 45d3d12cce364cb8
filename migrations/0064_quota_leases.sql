-- Who holds how much of which quota. Gateways take part of a window's limit as leases and let requests draw on them without asking; a
-- hard window's leases together are never granted more than its limit, but for what was used before the quota was set.
CREATE SCHEMA quota;
GRANT USAGE ON SCHEMA quota TO emberlog_app;

-- A window of a quota: `scope` tenant, model, agent or agent_own, `period` a day (2026-11-21) or a month (2026-11). `granted` and `used`
-- are the sums of its leases. `limit_position` is the position of the event that its limit is of: a gateway that has seen a newer one
-- brings it. `counted` is whether what was used before the quota was set is among the leases.
CREATE TABLE quota.windows (
    tenant text NOT NULL,
    scope text NOT NULL,
    subject text NOT NULL,
    unit text NOT NULL,
    period text NOT NULL,
    limit_value bigint NOT NULL,
    hard boolean NOT NULL,
    limit_position bigint NOT NULL,
    counted boolean NOT NULL DEFAULT false,
    granted bigint NOT NULL DEFAULT 0,
    used bigint NOT NULL DEFAULT 0,
    PRIMARY KEY (tenant, scope, subject, unit, period)
) WITH (fillfactor = 50);

-- What an instance holds of a window: what it has used, what its requests in flight have reserved, what it has left to let in. `used` is
-- what it last said; of an instance that is closed both are what the log says.
CREATE TABLE quota.leases (
    tenant text NOT NULL,
    scope text NOT NULL,
    subject text NOT NULL,
    unit text NOT NULL,
    period text NOT NULL,
    instance text NOT NULL,
    granted bigint NOT NULL,
    used bigint NOT NULL,
    PRIMARY KEY (tenant, scope, subject, unit, period, instance)
) WITH (fillfactor = 50);
CREATE INDEX leases_instances ON quota.leases (instance);

-- Instances that hold leases. `serial` numbers an instance's calls, so that one that arrives late changes nothing. A closed one has been
-- fenced and everything it used is counted: it is granted nothing any more.
CREATE TABLE quota.instances (
    id text PRIMARY KEY,
    serial bigint NOT NULL,
    closed boolean NOT NULL DEFAULT false
) WITH (fillfactor = 50);

GRANT SELECT, INSERT, UPDATE, DELETE ON quota.windows, quota.leases, quota.instances TO emberlog_app;

-- The fenced instances of late, of which some may not be closed yet.
CREATE INDEX instances_fenced ON emberlog.instances (fenced_head) WHERE fenced_at IS NOT NULL;
