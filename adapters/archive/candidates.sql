-- The partitions that may be archived, oldest first: whole below the head's, and all their events older than $1 and than what
-- `archive_partition` asks for.
WITH head AS MATERIALIZED (SELECT position, recorded_at FROM emberlog.head())
SELECT p.lower_bound, p.upper_bound - 1, p.name, newest.recorded_at
FROM head
JOIN emberlog.event_partitions p ON p.upper_bound <= head.position
JOIN emberlog.events newest ON newest.position = p.upper_bound - 1
WHERE newest.recorded_at < $1 AND newest.recorded_at <= least(head.recorded_at, clock_timestamp()) - interval '3 days'
ORDER BY p.lower_bound
