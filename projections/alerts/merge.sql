-- Brings what a batch says about each alert into the alerts view. By positions and not by arrival, so that an event folded late gives
-- the same row: of each kind of event the newest counts, and being seen and being over only behind the newest raising. A silence lasts
-- for as long as it says, whatever is raised meanwhile. The cursor is locked, so nobody else changes the rows between join and update.
INSERT INTO {table} AS t (
    tenant, alert, kind, severity, summary, labels, used, limit_value, episode, raised_position, raised_at,
    acknowledged_position, acknowledged_at, acknowledged_by, silenced_position, silenced_until, silenced_by,
    resolved_position, resolved_at, resolved_reason, resolved_by
)
SELECT
    d.tenant, d.alert, r.kind, r.severity, r.summary, r.labels, r.used, r.limit_value, r.episode, r.position, r.at,
    k.position, k.at, k.who, s.position, s.until, s.who, e.position, e.at, e.reason, e.who
FROM {delta} d
LEFT JOIN {table} a ON a.tenant = d.tenant AND a.alert = d.alert
CROSS JOIN LATERAL (
    SELECT v.* FROM (VALUES
        (a.raised_position, a.raised_at, a.kind, a.severity, a.summary, a.labels, a.used, a.limit_value, a.episode),
        (d.raised_position, d.raised_at, d.kind, d.severity, d.summary, d.labels, d.used, d.limit_value, d.episode)
    ) v (position, at, kind, severity, summary, labels, used, limit_value, episode)
    ORDER BY v.position DESC NULLS LAST LIMIT 1
) r
CROSS JOIN LATERAL (
    SELECT v.* FROM (VALUES
        (a.silenced_position, a.silenced_until, a.silenced_by), (d.silenced_position, d.silenced_until, d.silenced_by)
    ) v (position, until, who)
    ORDER BY v.position DESC NULLS LAST LIMIT 1
) s
LEFT JOIN LATERAL (
    SELECT v.* FROM (VALUES
        (a.acknowledged_position, a.acknowledged_at, a.acknowledged_by), (d.acknowledged_position, d.acknowledged_at, d.acknowledged_by)
    ) v (position, at, who)
    WHERE v.position > coalesce(r.position, 0)
    ORDER BY v.position DESC LIMIT 1
) k ON true
LEFT JOIN LATERAL (
    SELECT v.* FROM (VALUES
        (a.resolved_position, a.resolved_at, a.resolved_reason, a.resolved_by), (d.resolved_position, d.resolved_at, d.resolved_reason, d.resolved_by)
    ) v (position, at, reason, who)
    WHERE v.position > coalesce(r.position, 0)
    ORDER BY v.position DESC LIMIT 1
) e ON true
ON CONFLICT (tenant, alert) DO UPDATE SET
    kind = excluded.kind,
    severity = excluded.severity,
    summary = excluded.summary,
    labels = excluded.labels,
    used = excluded.used,
    limit_value = excluded.limit_value,
    episode = excluded.episode,
    raised_position = excluded.raised_position,
    raised_at = excluded.raised_at,
    acknowledged_position = excluded.acknowledged_position,
    acknowledged_at = excluded.acknowledged_at,
    acknowledged_by = excluded.acknowledged_by,
    silenced_position = excluded.silenced_position,
    silenced_until = excluded.silenced_until,
    silenced_by = excluded.silenced_by,
    resolved_position = excluded.resolved_position,
    resolved_at = excluded.resolved_at,
    resolved_reason = excluded.resolved_reason,
    resolved_by = excluded.resolved_by
