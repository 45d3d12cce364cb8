-- The first position of the partitions that are still in the database; what lies below it is archived. Null when there is none.
SELECT min(p.lower_bound)
FROM emberlog.event_partitions p
JOIN pg_inherits i ON i.inhparent = 'emberlog.events'::regclass AND i.inhrelid = to_regclass(format('emberlog.%I', p.name))
