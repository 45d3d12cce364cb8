-- Buckets that nobody has asked for a minute are full: they need not be kept. Those in use are passed by, so that nobody waits for this.
DELETE FROM emberlog.rate_buckets
WHERE bucket IN (
    SELECT bucket FROM emberlog.rate_buckets
    WHERE at < floor(extract(epoch FROM clock_timestamp()) * 1000) - 60000
    FOR UPDATE SKIP LOCKED
)
