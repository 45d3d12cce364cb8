-- Brings what a batch says about each model into the model_catalog view. By positions and not by arrival, so that an event folded late gives
-- the same row: of each part the newest event counts.
INSERT INTO {table} AS t (
    model, created_at, updated_at, facts_position, name, model_version, provider, type, model_type, dimensions, min_dimensions,
    max_tokens, unit, tokenizer, rank, aliases, capabilities, supports_binary, supports_dimensionality_reduction, minimum_tier,
    owned_by, offerings, origin, state_position, state, is_available, is_deprecated, deprecation_date, reason, validated_position,
    validated_at, validation_passed, validation_endpoint, validation_problems
)
SELECT
    model, created_at, updated_at, facts_position, name, model_version, provider, type, model_type, dimensions, min_dimensions,
    max_tokens, unit, tokenizer, rank, aliases, capabilities, supports_binary, supports_dimensionality_reduction, minimum_tier,
    owned_by, offerings, origin, state_position, state, is_available, is_deprecated, deprecation_date, reason, validated_position,
    validated_at, validation_passed, validation_endpoint, validation_problems
FROM {delta} d
ON CONFLICT (model) DO UPDATE SET
    created_at = least(t.created_at, excluded.created_at),
    updated_at = greatest(t.updated_at, excluded.updated_at),
    name = CASE WHEN excluded.facts_position > coalesce(t.facts_position, 0) THEN excluded.name ELSE t.name END,
    model_version = CASE WHEN excluded.facts_position > coalesce(t.facts_position, 0) THEN excluded.model_version ELSE t.model_version END,
    provider = CASE WHEN excluded.facts_position > coalesce(t.facts_position, 0) THEN excluded.provider ELSE t.provider END,
    type = CASE WHEN excluded.facts_position > coalesce(t.facts_position, 0) THEN excluded.type ELSE t.type END,
    model_type = CASE WHEN excluded.facts_position > coalesce(t.facts_position, 0) THEN excluded.model_type ELSE t.model_type END,
    dimensions = CASE WHEN excluded.facts_position > coalesce(t.facts_position, 0) THEN excluded.dimensions ELSE t.dimensions END,
    min_dimensions = CASE WHEN excluded.facts_position > coalesce(t.facts_position, 0) THEN excluded.min_dimensions ELSE t.min_dimensions END,
    max_tokens = CASE WHEN excluded.facts_position > coalesce(t.facts_position, 0) THEN excluded.max_tokens ELSE t.max_tokens END,
    unit = CASE WHEN excluded.facts_position > coalesce(t.facts_position, 0) THEN excluded.unit ELSE t.unit END,
    tokenizer = CASE WHEN excluded.facts_position > coalesce(t.facts_position, 0) THEN excluded.tokenizer ELSE t.tokenizer END,
    rank = CASE WHEN excluded.facts_position > coalesce(t.facts_position, 0) THEN excluded.rank ELSE t.rank END,
    aliases = CASE WHEN excluded.facts_position > coalesce(t.facts_position, 0) THEN excluded.aliases ELSE t.aliases END,
    capabilities = CASE WHEN excluded.facts_position > coalesce(t.facts_position, 0) THEN excluded.capabilities ELSE t.capabilities END,
    supports_binary = CASE WHEN excluded.facts_position > coalesce(t.facts_position, 0) THEN excluded.supports_binary ELSE t.supports_binary END,
    supports_dimensionality_reduction = CASE WHEN excluded.facts_position > coalesce(t.facts_position, 0) THEN excluded.supports_dimensionality_reduction ELSE t.supports_dimensionality_reduction END,
    minimum_tier = CASE WHEN excluded.facts_position > coalesce(t.facts_position, 0) THEN excluded.minimum_tier ELSE t.minimum_tier END,
    owned_by = CASE WHEN excluded.facts_position > coalesce(t.facts_position, 0) THEN excluded.owned_by ELSE t.owned_by END,
    offerings = CASE WHEN excluded.facts_position > coalesce(t.facts_position, 0) THEN excluded.offerings ELSE t.offerings END,
    origin = CASE WHEN excluded.facts_position > coalesce(t.facts_position, 0) THEN excluded.origin ELSE t.origin END,
    facts_position = greatest(t.facts_position, excluded.facts_position),
    state = CASE WHEN excluded.state_position > coalesce(t.state_position, 0) THEN excluded.state ELSE t.state END,
    is_available = CASE WHEN excluded.state_position > coalesce(t.state_position, 0) THEN excluded.is_available ELSE t.is_available END,
    is_deprecated = CASE WHEN excluded.state_position > coalesce(t.state_position, 0) THEN excluded.is_deprecated ELSE t.is_deprecated END,
    deprecation_date = CASE WHEN excluded.state_position > coalesce(t.state_position, 0) THEN excluded.deprecation_date ELSE t.deprecation_date END,
    reason = CASE WHEN excluded.state_position > coalesce(t.state_position, 0) THEN excluded.reason ELSE t.reason END,
    state_position = greatest(t.state_position, excluded.state_position),
    validated_at = CASE WHEN excluded.validated_position > coalesce(t.validated_position, 0) THEN excluded.validated_at ELSE t.validated_at END,
    validation_passed = CASE WHEN excluded.validated_position > coalesce(t.validated_position, 0) THEN excluded.validation_passed ELSE t.validation_passed END,
    validation_endpoint = CASE WHEN excluded.validated_position > coalesce(t.validated_position, 0) THEN excluded.validation_endpoint ELSE t.validation_endpoint END,
    validation_problems = CASE WHEN excluded.validated_position > coalesce(t.validated_position, 0) THEN excluded.validation_problems ELSE t.validation_problems END,
    validated_position = greatest(t.validated_position, excluded.validated_position)
