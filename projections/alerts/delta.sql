-- What the events in ($1, $2] say about each alert: the last of each kind.
WITH facts AS (
    SELECT
        e.position, e.recorded_at, e.tenant, e.type,
        d.alert, d.kind, d.severity, d.summary, d.labels, d.used, d."limit", d.episode, d.actor, d.until, d.reason,
        row_number() OVER (PARTITION BY e.tenant, d.alert, e.type ORDER BY e.position DESC) AS from_last
    FROM {events} e
    CROSS JOIN LATERAL jsonb_to_record(e.data) AS d (
        alert text, kind text, severity text, summary text, labels jsonb, used bigint, "limit" bigint, episode integer, actor text,
        until bigint, reason text
    )
    WHERE e.position > $1 AND e.position <= $2
        AND e.type IN ('alert.raised', 'alert.resolved', 'alert.acknowledged', 'alert.silenced')
)
-- One row of each kind is left, so that a maximum is that row's value. Defaults are left out of the JSON.
SELECT
    tenant, alert,
    max(kind) FILTER (WHERE type = 'alert.raised') AS kind,
    max(severity) FILTER (WHERE type = 'alert.raised') AS severity,
    max(summary) FILTER (WHERE type = 'alert.raised') AS summary,
    (max(coalesce(labels, '{}')::text) FILTER (WHERE type = 'alert.raised'))::jsonb AS labels,
    max(used) FILTER (WHERE type = 'alert.raised') AS used,
    max("limit") FILTER (WHERE type = 'alert.raised') AS limit_value,
    max(coalesce(episode, 1)) FILTER (WHERE type = 'alert.raised') AS episode,
    max(position) FILTER (WHERE type = 'alert.raised') AS raised_position,
    max(recorded_at) FILTER (WHERE type = 'alert.raised') AS raised_at,
    max(position) FILTER (WHERE type = 'alert.acknowledged') AS acknowledged_position,
    max(recorded_at) FILTER (WHERE type = 'alert.acknowledged') AS acknowledged_at,
    max(actor) FILTER (WHERE type = 'alert.acknowledged') AS acknowledged_by,
    max(position) FILTER (WHERE type = 'alert.silenced') AS silenced_position,
    max(until) FILTER (WHERE type = 'alert.silenced') AS silenced_until,
    max(actor) FILTER (WHERE type = 'alert.silenced') AS silenced_by,
    max(position) FILTER (WHERE type = 'alert.resolved') AS resolved_position,
    max(recorded_at) FILTER (WHERE type = 'alert.resolved') AS resolved_at,
    max(reason) FILTER (WHERE type = 'alert.resolved') AS resolved_reason,
    max(actor) FILTER (WHERE type = 'alert.resolved') AS resolved_by
FROM facts
WHERE from_last = 1
GROUP BY tenant, alert
