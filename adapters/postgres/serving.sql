-- Who may be writing to this log now: how many, the newest of them, and the seconds until the last lease has run out.
SELECT count(*) AS instances, (array_agg(description ORDER BY registered_at DESC))[1] AS newest,
       coalesce(ceil(extract(epoch FROM max(lease_until) - clock_timestamp())), 0)::integer AS seconds
FROM emberlog.instances
WHERE fenced_at IS NULL AND lease_until > clock_timestamp()
