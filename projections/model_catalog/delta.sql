-- What the events in ($1, $2] say about each model: of each part the last. Fields at their default are left out of the JSON.
WITH said AS (
    SELECT e.position, e.recorded_at, e.type AS event, e.data ->> 'model' AS model, e.data
    FROM {events} e
    WHERE e.position > $1 AND e.position <= $2
        AND e.type IN ('model.registered', 'model.updated', 'model.state_changed', 'model.validated')
), models AS (
    SELECT model, max(recorded_at) AS updated_at, min(recorded_at) FILTER (WHERE event = 'model.registered') AS created_at
    FROM said GROUP BY model
), facts AS (
    SELECT DISTINCT ON (model) model, position, data -> 'spec' AS spec, data -> 'offerings' AS offerings, data ->> 'origin' AS origin
    FROM said WHERE event IN ('model.registered', 'model.updated') ORDER BY model, position DESC
), states AS (
    SELECT DISTINCT ON (model) model, position, coalesce(data ->> 'state', 'draft') AS state,
        coalesce((data ->> 'available')::boolean, true) AS available, (data ->> 'removed_at')::bigint AS removed_at, data ->> 'reason' AS reason
    FROM said WHERE event IN ('model.registered', 'model.state_changed') ORDER BY model, position DESC
), validations AS (
    SELECT DISTINCT ON (model) model, position, recorded_at, data
    FROM said WHERE event = 'model.validated' ORDER BY model, position DESC
)
SELECT
    m.model, m.created_at, m.updated_at,
    f.position AS facts_position, f.spec ->> 'name' AS name, f.spec ->> 'version' AS model_version,
    f.offerings #>> '{0,provider}' AS provider,
    CASE WHEN f.position IS NOT NULL THEN coalesce(f.spec ->> 'type', 'embedding') END AS type,
    CASE WHEN f.position IS NOT NULL THEN coalesce(f.spec ->> 'model_type', 'text') END AS model_type,
    (f.spec ->> 'dimensions')::bigint AS dimensions,
    coalesce(
        (f.spec #>> '{dimensions_range,0}')::bigint,
        (SELECT min(a.size::bigint) FROM jsonb_array_elements_text(f.spec -> 'dimensions_allowed') AS a (size))
    ) AS min_dimensions,
    (f.spec ->> 'max_tokens')::bigint AS max_tokens,
    CASE WHEN f.position IS NOT NULL THEN coalesce((f.spec ->> 'unit')::boolean, true) END AS unit,
    f.spec ->> 'tokenizer' AS tokenizer,
    CASE WHEN f.position IS NOT NULL THEN coalesce((f.spec ->> 'rank')::bigint, 1000) END AS rank,
    CASE WHEN f.position IS NOT NULL THEN coalesce(f.spec -> 'aliases', '[]') END AS aliases,
    CASE WHEN f.position IS NOT NULL THEN coalesce(f.spec -> 'capabilities', '[]') END AS capabilities,
    CASE WHEN f.position IS NOT NULL THEN coalesce((f.spec ->> 'supports_binary')::boolean, false) END AS supports_binary,
    CASE WHEN f.position IS NOT NULL THEN f.spec ?| ARRAY['dimensions_range', 'dimensions_allowed'] END AS supports_dimensionality_reduction,
    CASE WHEN f.position IS NOT NULL THEN coalesce(f.spec ->> 'minimum_tier', 'free') END AS minimum_tier,
    CASE WHEN f.position IS NOT NULL THEN coalesce(f.spec ->> 'owned_by', '') END AS owned_by,
    f.offerings,
    CASE WHEN f.position IS NOT NULL THEN coalesce(f.origin, 'operator') END AS origin,
    s.position AS state_position, s.state,
    s.state = 'available' OR (s.state = 'deprecated' AND s.available) AS is_available,
    s.state = 'deprecated' AS is_deprecated,
    to_timestamp(s.removed_at) AS deprecation_date, s.reason,
    v.position AS validated_position, v.recorded_at AS validated_at, (v.data ->> 'passed')::boolean AS validation_passed,
    v.data ->> 'endpoint' AS validation_endpoint,
    CASE WHEN v.position IS NOT NULL THEN coalesce(v.data -> 'problems', '[]') END AS validation_problems
FROM models m
LEFT JOIN facts f ON f.model = m.model
LEFT JOIN states s ON s.model = m.model
LEFT JOIN validations v ON v.model = m.model
