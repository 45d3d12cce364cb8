-- Forgets instances fenced longer than $1 ago; says how many. One that an open attempt names stays: the attempt's end is found by it. So
-- does one whose last events the requests view may not have folded yet, in whichever generation, because its open attempts are not known
-- before; and one whose use of quotas is still to be counted, whether it held leases or died before it heard of a quota.
SELECT emberlog.sweep_instances(ARRAY(
    SELECT i.id
    FROM emberlog.instances i
    WHERE i.fenced_at < clock_timestamp() - $1::interval
        AND i.fenced_head <= (SELECT min(c.position) FROM projections.cursors c WHERE c.name = 'requests')
        AND NOT EXISTS (SELECT FROM projections.requests r WHERE r.state = 'open' AND r.instance = i.id::text)
        AND EXISTS (SELECT FROM quota.instances q WHERE q.id = i.id::text AND q.closed)
))
