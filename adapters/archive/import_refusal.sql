-- Why nothing may be imported into this database; null when it may.
SELECT CASE
    WHEN (SELECT position FROM emberlog.head()) > 0 OR EXISTS (SELECT FROM emberlog.segments)
        THEN format('this log has %s events: an export goes into an empty log, of a new data folder or database',
                    (SELECT position FROM emberlog.head()))
    WHEN EXISTS (SELECT FROM emberlog.tenant_keys)
        THEN 'this database has keys of tenants already: an export goes into a new one'
    WHEN EXISTS (SELECT FROM emberlog.instances WHERE fenced_at IS NULL AND lease_until > clock_timestamp())
        THEN 'a gateway runs on this database: stop it first'
END
