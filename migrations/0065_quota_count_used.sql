-- Brings what the log says each instance used of a window among its leases: what was used before the quota was set, and of instances
-- that have died since. Leases only grow by it. The caller holds the window's row. '' stands for gateways of a release before quotas.
CREATE FUNCTION quota.count_used(p_tenant text, p_scope text, p_subject text, p_unit text, p_period text) RETURNS void
LANGUAGE plpgsql VOLATILE
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    v_first CONSTANT date := to_date(rpad(p_period, 10, '-01'), 'YYYY-MM-DD');
    v_end CONSTANT date := v_first + CASE length(p_period) WHEN 10 THEN interval '1 day' ELSE interval '1 month' END;
BEGIN
    INSERT INTO quota.leases AS l (tenant, scope, subject, unit, period, instance, granted, used)
    SELECT p_tenant, p_scope, p_subject, p_unit, p_period, s.instance, s.used, s.used
    FROM (
        SELECT u.instance,
               sum(CASE p_unit WHEN 'tokens' THEN u.used_tokens WHEN 'requests' THEN u.used_requests ELSE u.used_nano_usd END) AS used
        FROM projections.quota u
        WHERE u.tenant = p_tenant AND u.day >= v_first AND u.day < v_end
            AND p_subject = CASE p_scope WHEN 'tenant' THEN '' WHEN 'model' THEN u.model ELSE u.agent END
        GROUP BY u.instance
    ) s
    WHERE s.used > 0
    ON CONFLICT (tenant, scope, subject, unit, period, instance)
        DO UPDATE SET granted = greatest(l.granted, excluded.granted), used = greatest(l.used, excluded.used)
        WHERE l.granted < excluded.granted OR l.used < excluded.used;
    UPDATE quota.windows w SET counted = true, granted = s.granted, used = s.used
    FROM (
        SELECT coalesce(sum(l.granted), 0) AS granted, coalesce(sum(l.used), 0) AS used
        FROM quota.leases l
        WHERE (l.tenant, l.scope, l.subject, l.unit, l.period) = (p_tenant, p_scope, p_subject, p_unit, p_period)
    ) s
    WHERE (w.tenant, w.scope, w.subject, w.unit, w.period) = (p_tenant, p_scope, p_subject, p_unit, p_period);
END
$$;
REVOKE ALL ON FUNCTION quota.count_used FROM PUBLIC;
GRANT EXECUTE ON FUNCTION quota.count_used TO emberlog_app;
