-- Token buckets of rate limits, for when there is no Redis: what each lacks, in 1/60,000 of a unit, and when that was (ms since the epoch,
-- this server's clock). Nothing here must survive: a bucket that is missing is full.
CREATE UNLOGGED TABLE emberlog.rate_buckets (
    bucket text COLLATE "C" PRIMARY KEY,
    lacking bigint NOT NULL,
    at bigint NOT NULL
) WITH (fillfactor = 50);
GRANT SELECT, INSERT, UPDATE, DELETE ON emberlog.rate_buckets TO emberlog_app;
