"""Which test shows what of the control plane: everything that decides which model a request may use and what it may cost, and the tests that
put it through. A test of that name must be there.
"""

from __future__ import annotations

import pytest

from tests.support.scenarios import Shown, flat, shown_in

LIFECYCLE = "tests/unit/domain/test_model_lifecycle.py"
DECISIONS = "tests/unit/domain/test_model_decisions.py"
SHIPPED = "tests/unit/test_catalogue.py"
LIVE = "tests/unit/test_live_catalogue.py"
ATTESTATION = "tests/unit/test_attestation.py"
MODELS = "tests/integration/test_models.py"
MODELS_API = "tests/unit/http/test_models_api.py"
MODELS_VIEW = "tests/integration/test_model_catalog_view.py"
TENANT_MODELS = "tests/unit/domain/test_tenant_models.py"
TENANT_API = "tests/unit/http/test_tenant_models.py"
TENANT_CLI = "tests/integration/test_cli_tenant_models.py"
TENANT_VIEWS = "tests/integration/test_tenant_views.py"
AGENTS = "tests/unit/domain/test_agents.py"
SELECTION = "tests/unit/domain/test_selection.py"
SELECTOR = "tests/unit/service/test_selector.py"
MENUS = "tests/unit/service/test_menus_kept.py"
FAILOVER = "tests/unit/service/test_failover.py"
SELECTED = "tests/acceptance/test_selection.py"
BOOK = "tests/unit/domain/test_prices.py"
CHARGES = "tests/unit/service/test_prices.py"
PRICES_API = "tests/unit/http/test_prices.py"
PRICES_CLI = "tests/integration/test_cli_prices.py"
MONEY = "tests/unit/domain/test_money.py"
COSTS = "tests/integration/test_http_costs.py"
QUOTAS = "tests/unit/domain/test_quotas.py"
LEASES = "tests/integration/test_quota_leases.py"
LEDGER = "tests/unit/quota/test_ledger.py"
LEDGER_STATE = "tests/unit/quota/test_ledger_state.py"
GATE = "tests/unit/quota/test_gate.py"
TWO_GATEWAYS = "tests/integration/test_quota_gateway.py"
QUOTAS_API = "tests/unit/http/test_quotas.py"
QUOTAS_CLI = "tests/integration/test_cli_quotas.py"
OVERSPEND = "tests/acceptance/test_overspend.py"
CALENDAR = "tests/unit/domain/test_calendar.py"
BUCKETS = "tests/conformance/test_rate_limiter.py"
RATES = "tests/unit/domain/test_rate_limits.py"
RATE_GATE = "tests/unit/limits/test_gate.py"
STORES = "tests/unit/limits/test_stores.py"
LOGINS = "tests/unit/limits/test_logins.py"
RATES_API = "tests/unit/http/test_rate_limits.py"
RATES_TOLD = "tests/acceptance/test_rate_limits.py"
RATES_SHARED = "tests/integration/test_rate_limits.py"
ALERTS = "tests/unit/domain/test_alerts.py"
WATCH = "tests/integration/test_alerts.py"
ALERTS_VIEW = "tests/integration/test_alerts_view.py"
ALERTS_API = "tests/integration/test_http_alerts.py"
RULES = "tests/unit/test_alert_rules.py"
OUTBOUND = "tests/integration/test_outbound.py"
WEBHOOKS = "tests/integration/test_webhooks.py"
GUARD = "tests/unit/webhooks/test_guard.py"
SIGNING = "tests/unit/webhooks/test_signing.py"
TOLD = "tests/acceptance/test_alerts.py"
TOKENS = "tests/unit/auth/test_tokens.py"
ISSUER = "tests/unit/auth/test_issuer.py"
ISSUERS = "tests/unit/auth/test_issuer_settings.py"
SIGNED_IN = "tests/acceptance/test_tokens.py"
CREDENTIALS = "tests/acceptance/test_contract_credentials.py"
ACCESS = "tests/unit/domain/test_access_decisions.py"
KEYS_API = "tests/unit/http/test_keys.py"
API = "tests/unit/http/test_api.py"
API_PAGE = "tests/unit/test_api_page.py"
SCHEMA = "tests/acceptance/test_api_schema.py"
ISOLATION = "tests/unit/http/test_isolation.py"
WALLS = "tests/unit/http/test_noninterference.py"
BAD_INPUT = "tests/unit/http/test_bad_input.py"
SETTINGS_API = "tests/unit/http/test_settings.py"
VIEWS = "tests/integration/test_http_api_views.py"
CLI_VIEWS = "tests/integration/test_cli_views.py"
USAGE = "tests/integration/test_http_usage.py"
PERIODS = "tests/integration/test_http_period_usage.py"
METRICS = "tests/acceptance/test_contract_metrics.py"
TAIL = "tests/unit/test_tail.py"
BENCH = "tests/acceptance/test_bench.py"

SCENARIOS: dict[str, dict[str, Shown]] = {
    "models": {
        "every transition of the lifecycle, every other refused": [
            (LIFECYCLE, "test_the_table_of_edges_is_the_drawing"),
            (LIFECYCLE, "TestLifecycle"),
            (LIFECYCLE, "test_a_machine_with_an_edge_too_many_is_caught"),
            (LIFECYCLE, "test_a_refused_step_says_where_the_model_stands_and_what_it_can_do"),
            (MODELS_API, "test_the_lifecycle_is_walked_by_states_and_other_ways_are_refused"),
        ],
        "registered ones are drafts, shipped ones available": [
            (DECISIONS, "test_a_registered_model_is_a_draft_and_says_who_registered_it"),
            (SHIPPED, "test_the_shipped_models_are_what_an_operator_could_register_and_are_available"),
        ],
        "one in testing serves admins alone": [
            (SELECTION, "test_a_model_in_testing_serves_admins_who_name_it_and_nobody_else"),
            (MODELS_API, "test_a_draft_is_shown_to_operators_alone_and_a_tested_model_to_admins"),
        ],
        "a deprecated one comes last, says so and is added by no tenant": [
            (SELECTION, "test_a_deprecated_model_comes_last_and_says_so"),
            (FAILOVER, "test_answers_of_a_deprecated_model_carry_a_notice"),
            ("tests/integration/test_http_embeddings.py", "test_request_headers_reach_the_service_and_answer_headers_the_client"),
            ("tests/unit/client/test_gateway_codec.py", "test_the_gateways_messages_are_read_by_the_client"),
            (TENANT_MODELS, "test_a_deprecated_model_can_be_kept_and_not_added"),
        ],
        "a grace period ends in removal": [
            (LIFECYCLE, "test_a_grace_period_is_within_reason"),
            (MODELS, "test_a_grace_period_ends_in_removal_once_however_many_look"),
        ],
        "the same again is there already, something else refused": [
            (DECISIONS, "test_the_same_model_again_is_there_already_whatever_the_order_of_its_offerings"),
            (DECISIONS, "test_another_model_of_a_name_that_is_taken_is_refused"),
            (MODELS_API, "test_a_model_is_registered_once_and_again_it_is_there"),
            (MODELS, "test_of_two_who_register_one_id_with_other_facts_the_later_is_refused"),
        ],
        "every failing field is named": [
            (DECISIONS, "test_every_wrong_fact_of_a_model_is_named"),
            (DECISIONS, "test_every_wrong_fact_of_an_offering_is_named"),
            (MODELS_API, "test_every_field_that_is_wrong_is_named"),
            (MODELS_API, "test_a_number_that_is_none_is_refused"),
        ],
        "settings for each provider": [(MODELS_API, "test_providers_tell_what_can_be_set_there")],
        "what spaces rest on stays": [(DECISIONS, "test_what_names_the_spaces_of_an_available_model_stays")],
        "loaded aside, then logged, then in force": [
            (LIVE, "test_a_change_that_cannot_be_loaded_is_found_out_aside"),
            (MODELS_API, "test_settings_that_cannot_be_loaded_change_nothing"),
            (MODELS_API, "test_a_change_is_in_force_when_it_is_answered_and_what_spaces_rest_on_stays"),
        ],
        "validated by probe texts, whose vectors become references": [
            (ATTESTATION, "test_good_vectors_become_the_references_of_their_space_and_are_found_good_again"),
            (ATTESTATION, "test_vectors_that_are_wrong_by_themselves_are_described_and_never_kept"),
            (ATTESTATION, "test_a_size_that_is_not_to_be_had_is_a_problem"),
            (ATTESTATION, "test_a_model_that_takes_too_long_is_found_so"),
            (MODELS, "test_a_model_of_ones_own_goes_from_its_registration_to_its_first_answer"),
            (MODELS, "test_our_own_requests_stop_at_their_budget"),
        ],
        "shipped with sources and dates, prices unknown where nobody states them": [
            (SHIPPED, "test_every_shipped_entry_says_when_and_how_surely_it_is_known"),
            (SHIPPED, "test_what_nobody_states_is_not_shipped_as_a_price"),
            (SHIPPED, "test_a_price_left_out_is_unknown_and_not_free"),
            (MODELS, "test_the_facts_of_a_new_release_are_taken_unless_an_operator_changed_the_model"),
            (MODELS, "test_many_who_start_at_once_seed_the_log_once"),
        ],
        "what embeds nothing can be registered and is never served": [
            (DECISIONS, "test_a_request_for_a_model_that_embeds_nothing_is_told_so_and_no_other_request_gets_it"),
        ],
        "found by filters, under the names of other systems too": [
            (MODELS_API, "test_filters_find_and_unknown_ones_are_refused"),
            (MODELS_API, "test_the_catalogue_speaks_the_names_of_other_systems_too"),
            (MODELS_API, "test_statistics_count_what_the_asker_may_see"),
        ],
        "in use by tenants, it is not removed": [(MODELS_API, "test_a_model_that_tenants_have_configured_is_not_removed")],
        "its view is the plain fold": [(MODELS_VIEW, "test_every_cut_and_every_late_event_gives_the_plain_fold")],
    },
    "tenant models": {
        "every transition of the lifecycle": [
            (TENANT_MODELS, "TestTenantModels"),
            (TENANT_MODELS, "test_states_follow_what_is_enabled_and_disabled"),
            (TENANT_MODELS, "test_the_account_of_the_lifecycle_finds_a_default_that_was_removed"),
        ],
        "one append configures and switches the default": [
            (TENANT_MODELS, "test_one_append_configures_and_switches_the_default"),
            (TENANT_API, "test_the_default_is_switched_by_one_write_and_not_taken_away"),
        ],
        "a quota used up shows as a state until it is raised": [
            (TENANT_API, "test_a_model_whose_quota_is_used_up_says_so_until_the_limit_is_raised"),
        ],
        "configuring twice changes, a race is refused": [
            (TENANT_MODELS, "test_configuring_twice_changes_what_is_said_and_leaves_the_rest"),
            (TENANT_API, "test_a_race_is_refused_where_a_version_is_expected"),
            (TENANT_API, "test_a_race_behind_a_price_is_refused_too"),
        ],
        "limits, prices, priority, tier, fallbacks": [
            (TENANT_MODELS, "test_limits_are_set_before_the_model_is_in_use"),
            (TENANT_MODELS, "test_operators_set_what_the_tenant_is_charged_and_nobody_else_does"),
            (TENANT_MODELS, "test_a_priority_is_from_0_to_a_million"),
            (TENANT_MODELS, "test_a_model_above_the_tenants_tier_can_be_configured_and_not_enabled"),
            (TENANT_MODELS, "test_fallbacks_that_lead_back_are_refused_however_long_the_way"),
        ],
        "what holds for all models of a tenant": [
            (FAILOVER, "test_the_tenants_failover_holds_where_the_request_says_nothing"),
            (API, "test_the_tier_is_for_operators_to_set"),
            (TENANT_CLI, "test_what_holds_for_every_request_of_a_tenant_is_shown_and_changed"),
        ],
        "the default is not taken away": [
            (TENANT_MODELS, "test_the_default_is_neither_disabled_nor_removed_nor_replaced_by_none"),
        ],
        "commands do what routes do": [
            (TENANT_CLI, "test_models_of_a_tenant_are_set_listed_made_the_default_and_removed"),
        ],
        "their views are the plain fold": [
            (TENANT_VIEWS, "test_every_cut_and_every_late_event_gives_the_plain_fold"),
            (TENANT_VIEWS, "test_the_default_is_the_model_with_the_highest_default_position"),
        ],
    },
    "agents": {
        "made once, changed, checked field by field": [
            (AGENTS, "test_an_agent_is_made_once_and_made_again_only_the_same"),
            (AGENTS, "test_every_wrong_field_is_named_at_once"),
            (TENANT_API, "test_an_agent_is_made_once_shown_and_changed"),
            (TENANT_API, "test_preferences_are_checked_field_by_field"),
        ],
        "different agents get different models": [
            (TENANT_API, "test_different_agents_of_a_tenant_get_different_models"),
            ("tests/acceptance/test_requests.py", "test_an_agents_registered_preference_chooses_the_model_from_then_on"),
        ],
        "a key of one agent speaks for it alone": [
            (TENANT_API, "test_a_key_of_one_agent_speaks_for_it_alone"),
            (RATES_TOLD, "test_a_key_of_one_agent_speaks_for_that_agent"),
        ],
        "ten thousand and no more": [(AGENTS, "test_a_tenant_has_a_limited_number_of_agents_and_known_ones_go_on")],
        "a budget of its own binds": [
            (QUOTAS, "test_the_budget_that_an_agent_states_stands_beside_the_one_that_was_set"),
            (MENUS, "test_a_budget_of_its_own_is_in_its_next_menu_and_out_of_the_one_after_its_end"),
        ],
        "what a request may cost and how long a model may take": [
            (FAILOVER, "test_the_agents_cost_cap_is_held_against_the_count_of_tokens"),
            (SELECTION, "test_a_cost_cap_counts_once_the_tokens_are_known_and_rounds_up"),
            (SELECTION, "test_a_model_whose_latency_nobody_knows_is_tried"),
        ],
    },
    "selection": {
        "the order": [
            (SELECTION, "test_the_order_is_requested_task_model_ranked_models_tenant_default_any"),
            (SELECTION, "test_any_follows_the_strategy_then_priority_then_cost_then_id"),
            (SELECTION, "test_ties_go_to_the_higher_priority_then_the_cheaper_then_the_first_id"),
            (SELECTION, "test_the_fixed_strategy_takes_nothing_that_the_agent_has_not_named"),
        ],
        "a reason for each model passed over": [
            (SELECTION, "test_each_model_passed_over_has_its_reason"),
            (TENANT_API, "test_the_whole_decision_is_shown"),
            (TENANT_CLI, "test_agents_are_stated_and_get_their_models_and_selection_explains_itself"),
        ],
        "whatever is chosen is adequate": [
            (SELECTION, "test_whatever_is_chosen_is_adequate_and_free_and_is_another_only_where_it_may_be"),
            (SELECTION, "test_what_alternatives_are_named_would_be_chosen_if_another_might"),
        ],
        "candidates kept by version, five minutes at most": [
            (SELECTOR, "test_a_menu_is_kept_while_nothing_changes_and_shared_by_tenants_without_anything_of_their_own"),
            (SELECTOR, "test_every_change_is_in_force_with_the_next_choice"),
            (SELECTOR, "test_no_menu_is_older_than_five_minutes"),
            (MENUS, "test_what_a_tenant_does_with_its_quotas_takes_nobody_elses_menu_away"),
        ],
        "quota and budget are looked at every time": [
            (SELECTOR, "test_quotas_are_asked_about_a_candidate_only_once_something_was_refused"),
            (SELECTOR, "test_a_soft_budget_that_is_used_up_is_looked_at_with_every_choice"),
        ],
        "another model only where it may answer": [
            (FAILOVER, "test_another_model_answers_where_the_quota_of_the_named_one_is_used_up"),
            (FAILOVER, "test_a_named_model_is_kept_to_and_the_refusal_names_what_would_answer"),
            (FAILOVER, "test_explicit_fallbacks_are_tried_first_and_every_refusal_is_remembered"),
            (SELECTED, "test_a_used_up_quota_moves_requests_to_the_next_model_where_they_allow_it"),
        ],
        "switches are recorded and counted": [(FAILOVER, "test_switches_are_counted_by_tenant_models_and_reason")],
        "a dry run says what would answer and why": [
            (FAILOVER, "test_a_dry_run_shows_what_would_answer_and_why"),
            (FAILOVER, "test_a_dry_run_asks_the_quotas_and_keeps_nothing_of_them"),
        ],
        "decisions a second": [
            ("tests/unit/test_bench_selection.py", "test_a_core_makes_200_000_decisions_a_second_among_50_models"),
            ("tests/unit/test_bench_selection.py", "test_what_is_measured_is_what_it_is_called"),
        ],
    },
    "prices": {
        "append only, by time, list and tenant": [
            (BOOK, "test_whatever_is_in_the_book_the_price_is_that_of_the_plain_rules"),
            (BOOK, "test_a_book_that_brings_an_older_price_back_is_found"),
            (BOOK, "test_of_an_id_in_the_book_only_the_end_can_change"),
            (BOOK, "test_a_tenant_is_charged_its_own_price_where_one_holds_and_else_the_list_price"),
            ("tests/acceptance/test_prices.py", "test_a_tenants_price_is_charged_while_it_holds_and_the_list_price_before_and_after"),
        ],
        "integer money, rounded up once": [
            (MONEY, "test_a_charge_is_the_exact_cost_rounded_up_to_the_next_nano_dollar"),
            (MONEY, "test_what_is_no_decimal_of_six_places_is_refused"),
        ],
        "by tokens or characters": [
            (CHARGES, "test_a_price_per_character_bills_code_points_and_usage_stays_in_tokens"),
            (SELECTION, "test_prices_per_character_and_per_token_are_put_into_one_order"),
        ],
        "unknown is nil, counted and told, never 0": [
            (CHARGES, "test_an_unknown_price_is_nil_and_never_0"),
            ("tests/unit/test_cost_metrics.py", "test_every_known_bill_is_in_the_cost_and_every_unknown_one_is_counted"),
            (WATCH, "test_an_unknown_price_is_told_until_it_is_known"),
        ],
        "known prices required": [
            (SELECTION, "test_a_tenant_that_requires_known_prices_has_no_model_without_one"),
        ],
        "what it cost": [
            (COSTS, "test_costs_are_told_by_bucket_and_by_what_they_are_grouped_by"),
            (COSTS, "test_every_grain_adds_up_to_the_same"),
            (COSTS, "test_an_agents_costs_are_those_of_its_last_days"),
            (PRICES_CLI, "test_costs_are_complete_up_to_the_head_and_grouped_as_asked"),
            ("tests/conformance/test_projections.py", "test_every_projection_has_a_plain_fold_to_be_held_against"),
        ],
        "overlaps are refused": [(BOOK, "test_prices_with_an_end_must_not_overlap_nor_any_two_begin_at_once")],
        "commands do what routes do": [(PRICES_CLI, "test_prices_are_listed_set_shown_and_ended")],
    },
    "quotas": {
        "no overspend by many gateways that are killed, paused and without a cache": [
            (OVERSPEND, "test_ten_times_the_demand_uses_the_quotas_up_and_not_a_unit_more"),
            (LEDGER_STATE, "test_many_processes_never_use_more_than_the_limit"),
            (LEDGER_STATE, "test_processes_that_check_without_reserving_overspend"),
            (LEASES, "test_processes_that_ask_at_once_get_the_limit_together_and_not_a_token_more"),
        ],
        "reserve, settle, release": [
            (GATE, "test_what_a_request_may_use_is_reserved_and_its_outcome_settles_it"),
            (LEDGER, "test_a_request_takes_from_every_lease_or_from_none"),
            (LEDGER, "test_what_a_request_did_not_use_is_free_again"),
            (GATE, "test_one_that_is_given_up_while_it_waits_takes_nothing"),
            (GATE, "test_while_nobody_knows_whether_the_log_has_an_outcome_what_it_took_stays_taken"),
            (GATE, "test_a_replay_reserves_nothing_for_long"),
        ],
        "what the dead held comes back, to the token": [
            (LEASES, "test_a_dead_process_leaves_what_it_used_and_frees_the_rest"),
            (LEASES, "test_a_process_fenced_while_it_asks_is_closed_after_that_or_granted_nothing"),
            (TWO_GATEWAYS, "test_what_a_gateway_has_left_when_it_ends_is_there_for_the_others"),
        ],
        "nothing passes while nobody can be asked": [
            (GATE, "test_while_postgres_is_away_what_is_left_is_let_in_and_no_more"),
        ],
        "every scope, unit and window": [
            (LEASES, "test_each_scope_unit_and_window_counts_its_own"),
            (QUOTAS, "test_a_request_draws_on_its_tenant_s_its_model_s_and_its_agent_s_quotas_and_no_others"),
        ],
        "windows of the tenant's zone": [
            (GATE, "test_the_day_is_the_tenant_s_and_is_said_where_it_is_not_utc_s"),
            (CALENDAR, "test_every_hour_of_a_year_has_the_day_that_the_clock_on_the_wall_shows"),
            (CALENDAR, "test_a_window_ends_when_the_next_begins_in_its_zone"),
            (WATCH, "test_the_window_is_that_of_the_tenants_zone"),
        ],
        "refused with all that explains it": [
            (GATE, "test_what_exceeds_a_quota_is_refused_with_all_that_explains_it_and_not_logged"),
            (GATE, "test_a_budget_is_refused_as_one"),
            (GATE, "test_a_hard_budget_lets_in_no_model_of_unknown_price"),
            (SELECTION, "test_alternatives_are_what_would_answer_if_another_might"),
        ],
        "an answer says what is left": [
            (GATE, "test_an_answer_says_how_many_tokens_are_left_where_a_hard_quota_of_them_is_set"),
        ],
        "a soft budget leaves the cheapest": [
            (GATE, "test_a_soft_budget_that_is_used_up_is_known_for_the_present_window"),
            (SELECTION, "test_over_a_soft_budget_only_the_cheapest_adequate_model_is_chosen_where_another_may_answer"),
            (TENANT_API, "test_a_soft_budget_that_is_used_up_leaves_the_cheapest_model"),
        ],
        "a cached answer is a request and no tokens": [
            (LEDGER, "test_an_outcome_uses_what_it_bills"),
            ("tests/unit/service/test_requests.py", "test_a_cached_text_costs_nothing_and_calls_nobody"),
        ],
        "set in the middle of a window, changed, removed": [
            (TWO_GATEWAYS, "test_a_quota_counts_what_both_gateways_used_before_it_was_set_and_binds_both_as_it_changes"),
            (LEDGER, "test_a_lowered_limit_returns_what_is_left_and_a_raised_one_is_told"),
            (QUOTAS_API, "test_a_quota_is_set_changed_and_removed"),
            (QUOTAS_CLI, "test_quotas_are_set_shown_as_they_stand_and_removed"),
        ],
        "drift is found": [(LEASES, "test_drift_is_found_and_named_by_how_much")],
        "used and reserved are shown": [(QUOTAS_CLI, "test_the_state_tells_how_much_of_a_quota_is_used")],
    },
    "rate limits": {
        "a bucket is exact, whoever counts it": [
            (RATES, "test_over_any_stretch_no_more_is_given_than_a_bucket_and_its_refill"),
            (RATES, "test_the_bound_above_can_be_broken"),
        ],
        "shared by all processes": [
            (RATES_SHARED, "test_two_gateways_give_out_one_limit_and_go_on_with_it_in_postgres_when_redis_is_lost"),
            (STORES, "test_processes_share_the_second_as_they_share_the_first"),
            (STORES, "test_processes_that_count_for_themselves_would_let_as_many_times_more_through"),
            (STORES, "test_with_both_lost_nothing_is_decided"),
        ],
        "of keys, agents, tenants and threads": [
            (RATES, "test_a_request_draws_on_a_bucket_for_each_figure_of_each_scope"),
            (RATES_API, "test_a_limit_is_set_changed_whole_listed_and_removed"),
        ],
        "429 says when to come again, headers say what is left": [
            (RATES_TOLD, "test_a_limit_holds_over_every_connection_and_says_when_to_come_again"),
            (RATE_GATE, "test_headers_are_named_and_durations_written_as_openai_does"),
            (RATE_GATE, "test_a_ticket_tells_the_tightest_bucket_of_each_unit_also_when_it_is_refused"),
        ],
        "who has no credential is limited by address": [
            (LOGINS, "test_so_many_a_minute_are_told_what_is_wrong_and_the_rest_to_wait"),
            (LOGINS, "test_what_is_wrong_with_a_valid_credential_is_not_counted"),
        ],
        "none until one is set": [
            (RATES, "test_a_tenant_without_limits_has_none_to_look_through"),
            (RATE_GATE, "test_where_no_limit_is_set_nobody_is_asked"),
        ],
    },
    "alerts": {
        "levels once a window, cleared by a raise and by the next window": [
            (ALERTS, "test_the_levels_are_over_80_over_90_and_all_of_it"),
            (ALERTS, "test_each_level_is_raised_once_a_window_and_all_are_cleared_by_the_next"),
            (ALERTS, "test_a_raised_limit_clears_what_is_no_longer_reached_and_a_lowered_one_raises_it_again"),
            (ALERTS, "TestQuotaAlerts"),
            (WATCH, "test_use_raises_each_level_as_it_is_passed_and_the_new_month_clears_them"),
        ],
        "on events, on a changed limit, on reading": [
            (WATCH, "test_a_changed_limit_is_evaluated_by_itself"),
            (ALERTS_API, "test_reading_alerts_works_them_out_and_each_sees_its_own"),
            (WATCH, "test_whoever_evaluates_at_once_raises_it_once_and_one_line_of_the_log_says_so"),
        ],
        "deprecation, unknown price, failover, lag, drift": [
            (WATCH, "test_a_tenant_hears_of_a_deprecated_model_that_it_has_and_operators_of_how_many"),
            (WATCH, "test_an_unknown_price_is_told_until_it_is_known"),
            (WATCH, "test_a_failover_is_told_until_it_has_been_quiet"),
            (WATCH, "test_a_view_that_lags_or_halts_and_drift_are_told_to_operators"),
        ],
        "raised, acknowledged, silenced, resolved": [
            (ALERTS_API, "test_an_alert_is_acknowledged_silenced_and_resolved_with_who_did_it"),
            (ALERTS, "test_an_acknowledged_or_silenced_alert_is_not_delivered_and_a_silence_ends_by_itself"),
            (ALERTS_VIEW, "test_however_the_log_is_cut_and_whatever_comes_late_the_view_is_the_plain_fold"),
        ],
        "a failed evaluation is recorded, tried again, parked": [
            (WATCH, "test_what_fails_for_a_tenant_is_an_alert_tried_again_parked_and_let_go"),
            (ALERTS_API, "test_what_could_not_be_worked_out_is_the_operators_to_retry"),
        ],
        "told to the log, webhooks and the Alertmanager": [
            (WATCH, "test_whoever_evaluates_at_once_raises_it_once_and_one_line_of_the_log_says_so"),
            (TOLD, "test_a_used_up_quota_is_told_to_the_webhook_and_its_end_too"),
            (OUTBOUND, "test_what_is_raised_goes_to_the_webhook_and_to_the_alertmanager_of_the_settings"),
            (WATCH, "test_the_alertmanager_is_told_what_is_open_and_what_was_resolved_but_nothing_silenced"),
        ],
        "rules for Prometheus speak of what there is": [
            (RULES, "test_a_rule_names_metrics_and_labels_that_there_are"),
            (RULES, "test_a_metric_or_label_that_there_is_not_would_be_found"),
            (RULES, "test_the_monitoring_services_load_the_rules_read_the_metrics_and_tell_one_alertmanager"),
            (METRICS, "test_every_metric_has_the_labels_of_its_name_and_none_names_an_agent_a_thread_or_a_request"),
        ],
    },
    "webhooks": {
        "signed, in order, again and again, given up": [
            (WEBHOOKS, "test_events_behind_the_webhook_reach_it_signed_in_the_order_of_the_log"),
            (WEBHOOKS, "test_what_fails_is_tried_again_and_after_the_last_try_is_a_dead_letter_that_is_an_event"),
            (WEBHOOKS, "test_a_dead_letter_goes_out_again_or_is_forgotten"),
            (WEBHOOKS, "test_after_a_rotation_both_secrets_verify_until_the_overlap_is_over"),
        ],
        "no way into the house": [
            (GUARD, "test_an_inner_address_does_not_pass"),
            (GUARD, "test_services_of_the_host_never_pass"),
        ],
        "each hears of its own": [
            (WEBHOOKS, "test_a_webhook_gets_its_tenants_events_of_its_types_and_one_of_the_installation_those_of_all"),
            (WEBHOOKS, "test_a_slow_receiver_holds_up_nobody_else"),
        ],
    },
    "credentials": {
        "forged, expired and confused tokens": [
            (TOKENS, "test_a_forged_or_broken_token_is_refused_and_only_the_log_says_why"),
            (TOKENS, "test_a_token_is_verified_once_and_refused_as_soon_as_it_expires"),
            (TOKENS, "test_whatever_the_issuer_signs_yields_a_principal_of_its_tenant_or_a_refusal"),
            (TOKENS, "test_the_checks_above_can_fail"),
        ],
        "an issuer is bound to its tenants": [
            (TOKENS, "test_a_token_of_a_tenant_that_is_not_its_issuers_is_refused"),
            (TOKENS, "test_only_scopes_that_we_know_are_granted_and_operator_to_no_tenant"),
        ],
        "keys rotate": [
            (ISSUER, "test_keys_rotate_under_open_sessions"),
            (ISSUER, "test_the_keys_of_a_file_are_read_again_as_those_of_an_address"),
            (SIGNED_IN, "test_tokens_open_what_keys_open_until_their_signer_leaves_the_set"),
        ],
        "claims are named in the settings": [
            (TOKENS, "test_the_claims_are_named_in_the_settings"),
            (ISSUERS, "test_what_cannot_be_meant_is_refused_by_name"),
        ],
        "keys expire, are revoked and show their secret once": [
            (CREDENTIALS, "test_a_key_that_expires_ends_its_sessions_within_a_second"),
            (CREDENTIALS, "test_a_revoked_key_is_refused_over_http_within_a_second"),
            (KEYS_API, "test_a_key_is_shown_once_works_at_once_and_is_listed_without_its_secret"),
        ],
        "no credential makes one with more": [(ACCESS, "test_no_credential_makes_a_key_with_a_scope_it_lacks")],
        "whoever decides stands in the event": [(ACCESS, "test_every_decision_can_say_who_took_it")],
    },
    "management": {
        "no undocumented answer": [
            (SCHEMA, "test_every_answer_is_one_that_is_documented"),
            (SCHEMA, "test_an_undocumented_answer_is_found"),
        ],
        "tenants are walls": [
            (ISOLATION, "test_no_key_gets_past_its_scope_or_its_tenant"),
            (ISOLATION, "test_a_route_that_forgot_its_scope_would_be_found"),
            (WALLS, "test_a_tenant_is_told_the_same_whatever_another_has"),
            (WALLS, "test_a_wall_with_a_hole_would_be_found"),
        ],
        "routes and scopes are published": [
            (API_PAGE, "test_the_page_in_the_repository_is_the_one_that_the_code_makes"),
        ],
        "expected versions, positions, the same again": [
            (API, "test_an_expected_version_that_is_not_there_any_more_changes_nothing"),
            (API, "test_a_race_is_decided_anew_unless_the_asker_said_what_it_had_read"),
            (API, "test_a_write_is_in_force_when_it_is_answered_and_carries_its_place_in_the_log"),
            (API, "test_what_is_so_already_is_answered_and_written_nowhere"),
        ],
        "a model's metrics, whole or in part": [
            (VIEWS, "test_a_models_metrics_are_its_tenants_own_or_those_of_all_and_come_with_its_alerts"),
            (VIEWS, "test_metrics_whose_view_is_out_of_reach_are_marked_and_the_rest_is_there"),
            (CLI_VIEWS, "test_a_models_metrics_are_complete_up_to_the_head"),
        ],
        "a thread's requests without texts": [
            (VIEWS, "test_a_thread_shows_its_tenants_requests_in_order_page_by_page"),
            (CLI_VIEWS, "test_a_thread_lists_its_requests_and_outcomes"),
        ],
        "usage by hour, day, week and month": [
            (PERIODS, "test_a_period_ends_now_and_is_as_long_as_its_name_says"),
            (USAGE, "test_a_span_holds_the_buckets_from_its_beginning_to_before_its_end"),
        ],
        "settings of events, over file and environment": [
            (SETTINGS_API, "test_a_changed_setting_is_shown_with_its_source_until_it_is_taken_back"),
            (SETTINGS_API, "test_a_value_that_the_setting_cannot_have_is_refused_with_its_name"),
        ],
        "in force in other processes within a second": [
            (BENCH, "test_a_change_made_at_one_gateway_is_in_force_in_another_process_within_a_second"),
            (TAIL, "test_a_revocation_takes_effect_when_the_log_is_woken"),
            (TWO_GATEWAYS, "test_a_quota_counts_what_both_gateways_used_before_it_was_set_and_binds_both_as_it_changes"),
        ],
        "what dashboards of this field are used to": [
            (METRICS, "test_what_a_gateway_does_shows_in_its_metrics_under_the_names_and_labels_that_dashboards_use"),
        ],
    },
    "bad input": {
        "negative, NaN and huge limits, wrong units": [
            (QUOTAS, "test_a_limit_that_is_no_whole_number_within_bounds_is_refused"),
            (QUOTAS_API, "test_what_cannot_be_is_refused_with_the_field_named"),
            (RATES, "test_a_limit_that_makes_no_sense_is_refused_naming_every_field"),
            (PRICES_API, "test_amounts_that_are_no_whole_numbers_within_bounds_are_refused"),
        ],
        "unknown fields": [(API, "test_every_failing_field_is_named_at_once_and_nothing_is_changed")],
        "time zones that do not exist": [
            (BAD_INPUT, "test_a_zone_that_means_nothing_or_something_else_elsewhere_is_refused"),
        ],
        "circular fallbacks": [(TENANT_API, "test_circular_fallbacks_are_refused")],
    },
}  # fmt: skip
ALL = flat(SCENARIOS)


@pytest.mark.parametrize(
    ("scenario", "path", "name"), ALL, ids=[f"{scenario} {n}" for n, (scenario, *_) in enumerate(ALL)]
)
def test_every_scenario_has_its_test(scenario: str, path: str, name: str) -> None:
    assert name in shown_in(path), f"{scenario}: {path} has no test of this name"


def test_a_name_that_there_is_not_would_be_found() -> None:
    assert "test_nothing_of_the_kind" not in shown_in(LIFECYCLE)
    assert {"TestLifecycle", "test_the_table_of_edges_is_the_drawing"} <= shown_in(LIFECYCLE)
