-- What was used of each day's quotas: by tenant, day (of the tenant's time zone, as the events say), agent, model and the gateway instance
-- that the request was settled by ('' where its event does not name one), for 62 days. `used_requests` counts the answered ones and those
-- billed without an answer; `used_nano_usd` is the sum of the known charges, `unpriced` counts the unknown ones.
CREATE TABLE projections.quota_1 (
    tenant text NOT NULL,
    day date NOT NULL,
    agent text NOT NULL,
    model text NOT NULL,
    instance text NOT NULL,
    used_tokens bigint NOT NULL,
    used_requests bigint NOT NULL,
    used_nano_usd bigint NOT NULL,
    unpriced bigint NOT NULL,
    PRIMARY KEY (tenant, day, agent, model, instance)
) WITH (fillfactor = 70);

-- What an instance that died has used is asked for once.
CREATE INDEX quota_1_instances ON projections.quota_1 (instance);
ALTER TABLE projections.quota_1 OWNER TO emberlog_app;
CREATE VIEW projections.quota AS SELECT * FROM projections.quota_1;
ALTER VIEW projections.quota OWNER TO emberlog_app;
