-- Brings what a batch says about each attempt into the requests view. By positions and not by arrival, so that an event folded late
-- gives the same row: the newest `requested` counts, and the newest outcome behind it. One of more than 30 days before that outcome does
-- not: its row may have been pruned, and whether it was must make no difference.
INSERT INTO {table} AS r (
    tenant, request_id, attempt, state, agent, model, provider, instance, code,
    requested_position, requested_at, outcome_position, outcome_at
)
SELECT
    tenant, request_id, attempt, state, agent, model, provider, CASE WHEN known THEN instance END, code,
    CASE WHEN known THEN requested_position END, CASE WHEN known THEN requested_at END, outcome_position, outcome_at
FROM (SELECT *, coalesce(requested_at >= outcome_at - interval '30 days', true) AS known FROM {delta} batch) d
ON CONFLICT (tenant, request_id, attempt) DO UPDATE SET
    (instance, requested_position, requested_at) = (
        SELECT s.instance, s.requested_position, s.requested_at
        FROM (VALUES (r.instance, r.requested_position, r.requested_at),
                     (excluded.instance, excluded.requested_position, excluded.requested_at)
        ) s (instance, requested_position, requested_at)
        WHERE s.requested_at >= coalesce(greatest(r.outcome_at, excluded.outcome_at) - interval '30 days', s.requested_at)
        ORDER BY s.requested_position DESC NULLS LAST LIMIT 1
    ),
    (state, agent, model, provider, code, outcome_position, outcome_at) = (
        SELECT
            CASE WHEN s.ended THEN s.state ELSE 'open' END, s.agent, s.model, CASE WHEN s.ended THEN s.provider END,
            CASE WHEN s.ended THEN s.code END, CASE WHEN s.ended THEN s.outcome_position END, CASE WHEN s.ended THEN s.outcome_at END
        FROM (
            SELECT v.*, coalesce(v.outcome_position > coalesce(greatest(r.requested_position, excluded.requested_position), 0), false) AS ended
            FROM (VALUES
                (r.state, r.agent, r.model, r.provider, r.code, r.requested_position, r.outcome_position, r.outcome_at),
                (excluded.state, excluded.agent, excluded.model, excluded.provider, excluded.code, excluded.requested_position,
                 excluded.outcome_position, excluded.outcome_at)
            ) v (state, agent, model, provider, code, requested_position, outcome_position, outcome_at)
        ) s
        ORDER BY s.ended DESC, CASE WHEN s.ended THEN s.outcome_position ELSE s.requested_position END DESC NULLS LAST LIMIT 1
    )
