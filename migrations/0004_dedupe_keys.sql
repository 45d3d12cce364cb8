-- The dedupe keys of the last days, by the day of arrival (days since 1970-01-01, UTC). A key's first event holds it.
CREATE TABLE emberlog.dedupe_keys (
    day integer NOT NULL,
    key uuid NOT NULL,
    position bigint NOT NULL,
    fingerprint bytea,
    PRIMARY KEY (day, key)
) PARTITION BY LIST (day);

-- The newest version of each decision stream.
CREATE TABLE emberlog.decision_streams (
    stream text PRIMARY KEY,
    version bigint NOT NULL
);
