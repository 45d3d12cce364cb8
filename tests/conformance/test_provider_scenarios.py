"""Which test shows what of providers and dispatch: from a text that an agent sends to the call that carries it, and whatever may go wrong
on the way. A test of that name must be there, and every provider must be held to the contract.
"""

from __future__ import annotations

from importlib import import_module

import pytest

from adapters.providers.registry import PROVIDERS
from tests.conformance.provider_contract import ProviderContract
from tests.support.scenarios import Shown, flat, shown_in

CONTRACT = "tests/conformance/provider_contract.py"
OF_CONTRACT = "tests/conformance/test_provider_contract.py"
DIALECTS = "tests/conformance/test_provider_dialects.py"
OPENAI = "tests/conformance/test_provider_openai.py"
AZURE = "tests/conformance/test_provider_azure.py"
BEDROCK = "tests/conformance/test_provider_bedrock.py"
VERTEX = "tests/conformance/test_provider_vertex.py"
GEMINI = "tests/conformance/test_provider_gemini.py"
COHERE = "tests/conformance/test_provider_cohere.py"
VOYAGE = "tests/conformance/test_provider_voyage.py"
MISTRAL = "tests/conformance/test_provider_mistral.py"
JINA = "tests/conformance/test_provider_jina.py"
SIZES = "tests/conformance/test_provider_sizes.py"
CHAOS = "tests/conformance/test_provider_chaos.py"
LIVE_SUITE = "tests/conformance/test_live_suite.py"
LOCAL = "tests/integration/test_local_model.py"
REGISTRY = "tests/unit/test_provider_registry.py"
HTTP = "tests/unit/test_provider_http.py"
SIGNATURES = "tests/unit/test_bedrock_signatures.py"
SHIPPED = "tests/unit/test_catalogue.py"
CATALOGUE = "tests/unit/domain/test_catalogue.py"
BATCHING = "tests/unit/dispatch/test_batching.py"
CAPS = "tests/unit/dispatch/test_caps.py"
CIRCUITS = "tests/unit/dispatch/test_circuits.py"
COUNTING = "tests/unit/dispatch/test_counting.py"
DISPATCHER = "tests/unit/dispatch/test_dispatcher.py"
DIVISION = "tests/unit/dispatch/test_division.py"
FAILURES = "tests/unit/dispatch/test_failures.py"
FAIRNESS = "tests/unit/dispatch/test_fairness.py"
HANDOVER = "tests/unit/dispatch/test_handover.py"
PACE = "tests/unit/dispatch/test_pace.py"
PROPERTIES = "tests/unit/dispatch/test_properties.py"
RECOVERY = "tests/unit/dispatch/test_recovery.py"
REGATHER = "tests/unit/dispatch/test_regather.py"
FLIGHTS = "tests/unit/dispatch/test_single_flight.py"
TRIALS = "tests/unit/dispatch/test_trials.py"
ANSWERS = "tests/unit/dispatch/test_answers.py"
VECTORS = "tests/unit/test_vectors.py"
SENDING = "tests/unit/service/test_sending.py"
FAILOVER = "tests/unit/service/test_failover.py"
SWITCHING = "tests/unit/service/test_switching.py"
PINNED = "tests/unit/service/test_pinned.py"
WAITING = "tests/unit/service/test_waiting.py"
WHOLE = "tests/unit/service/test_properties.py"
COUNTS = "tests/unit/service/test_counts.py"
CACHING = "tests/unit/service/test_caching.py"
REQUESTS = "tests/unit/service/test_requests.py"
LRU = "tests/unit/test_lru_cache.py"
REDIS = "tests/integration/test_redis_cache.py"
BREAKER = "tests/conformance/test_breaker.py"
BREAKER_MACHINE = "tests/unit/test_breaker_machine.py"
ROUTER = "tests/unit/endpoints/test_router.py"
SHARED_CIRCUITS = "tests/unit/endpoints/test_breakers.py"
SHARED_MACHINE = "tests/unit/endpoints/test_breakers_machine.py"
TWO_GATEWAYS = "tests/integration/test_circuits_gateway.py"
HEALTH = "tests/unit/domain/test_endpoint_health.py"
CHECKS = "tests/unit/endpoints/test_health.py"
POOL = "tests/unit/test_endpoint_pool.py"
MEMORY = "tests/unit/test_endpoint_memory.py"
DEPLOYMENTS = "tests/unit/domain/test_deployments.py"
DEPLOY_API = "tests/unit/http/test_deployments.py"
DEPLOYED = "tests/integration/test_deployments.py"
CREDENTIALS = "tests/integration/test_credentials.py"
CREDENTIALS_API = "tests/unit/http/test_credentials.py"
CREDENTIALS_CLI = "tests/unit/test_cli_credentials.py"
ATTESTATIONS = "tests/unit/test_attestations.py"
ATTESTED_FOR = "tests/unit/domain/test_attestations.py"
ATTESTED = "tests/integration/test_attestation.py"
ATTEST_API = "tests/unit/http/test_attestation.py"
REFERENCES = "tests/integration/test_space_references.py"
MODELS = "tests/integration/test_models.py"
PROVIDER_HEALTH = "tests/integration/test_provider_health.py"
ENDPOINTS_API = "tests/unit/http/test_endpoints.py"
ENDPOINTS_CLI = "tests/integration/test_cli_endpoints.py"
ENDPOINTS_PAGE = "tests/integration/test_endpoints_page.py"
ENDPOINT_ALERTS = "tests/unit/domain/test_endpoint_alerts.py"
ALERTS = "tests/integration/test_alerts.py"
RUNNING = "tests/acceptance/test_endpoints.py"
FAULTS = "tests/acceptance/test_provider_faults.py"
WIRE = "tests/acceptance/test_requests.py"
CONTRACT_ANSWERS = "tests/acceptance/test_contract_answers.py"
METRICS = "tests/acceptance/test_contract_metrics.py"
TRACES = "tests/acceptance/test_contract_traces.py"
BENCH = "tests/acceptance/test_bench.py"
RULES = "tests/unit/test_alert_rules.py"
REPOSITORY = "tests/unit/test_repository.py"
API_PAGE = "tests/unit/test_api_page.py"
SCHEMA = "tests/acceptance/test_api_schema.py"
ISOLATION = "tests/unit/http/test_isolation.py"
CORPUS = "tests/unit/domain/test_event_corpus.py"

HELD_TO_IT: dict[str, Shown] = {
    "azure": [(AZURE, "TestAzureKeepsTheContract")],
    "bedrock": [
        (BEDROCK, "TestTitanKeepsTheContract"),
        (BEDROCK, "TestCohereV3KeepsTheContract"),
        (BEDROCK, "TestCohereV4KeepsTheContract"),
    ],
    "cohere": [(COHERE, "TestCohereKeepsTheContract")],
    "gemini": [(GEMINI, "TestGeminiKeepsTheContract")],
    "jina": [(JINA, "TestJinaKeepsTheContract")],
    "local": [
        # It is in this process: there is no protocol, key or connection to hold it to.
        (LIVE_SUITE, "TestOfTheLocalModel"),
        (LOCAL, "test_a_text_in_a_batch_gets_the_vector_it_gets_alone_and_keeps_its_place"),
        (LOCAL, "test_tokens_are_counted_per_text_with_the_special_ones"),
        (LOCAL, "test_a_text_over_the_limit_is_refused_with_its_index_and_the_next_call_works"),
        (LOCAL, "test_a_call_over_its_time_fails_as_timeout_and_frees_the_model"),
        (LOCAL, "test_a_closed_provider_says_so_and_closes_twice"),
    ],
    "mistral": [(MISTRAL, "TestMistralKeepsTheContract")],
    "openai": [(OPENAI, "TestOpenAIKeepsTheContract")],
    "vertex": [(VERTEX, "TestVertexKeepsTheContract")],
    "voyage": [(VOYAGE, "TestVoyageKeepsTheContract")],
}
"""Of each provider that the registry knows."""

SCENARIOS: dict[str, dict[str, Shown]] = {
    "providers": {
        "each text its own vector, in order": [
            (CONTRACT, "test_each_text_gets_exactly_its_own_vector_in_the_order_asked"),
            (CONTRACT, "test_vectors_listed_in_another_order_are_put_back_by_their_index"),
        ],
        "tokens as they are told, of a text, of a call or not at all": [
            (CONTRACT, "test_tokens_are_reported_as_the_provider_tells_them"),
            (CONTRACT, "test_an_answer_without_usage_has_no_token_count"),
            (BEDROCK, "test_titans_tokens_may_stand_in_the_header_alone"),
            (HTTP, "test_a_usage_of_zero_is_none_since_no_text_has_no_tokens"),
        ],
        "no count of the provider's: ours, marked as estimated": [
            (COUNTING, "test_where_the_provider_gives_no_count_of_use_ours_stands"),
            (COUNTS, "test_where_nobody_counts_our_estimate_is_billed_and_says_so"),
            (COUNTS, "test_where_we_cannot_count_the_providers_count_is_billed_and_is_no_estimate"),
            (COUNTS, "test_an_exact_count_of_ours_stands_whatever_the_provider_says"),
        ],
        "dimensions and input types in the provider's words": [
            (CONTRACT, "test_dimensions_are_sent_only_when_they_are_asked_for"),
            (CONTRACT, "test_each_input_type_is_told_in_the_providers_words"),
            (JINA, "test_tasks_are_those_of_the_model"),
        ],
        "caps of the provider": [
            (CONTRACT, "test_more_texts_than_a_call_may_have_are_too_large"),
            (OPENAI, "test_too_many_tokens_in_a_call_are_too_large"),
            (VERTEX, "test_too_many_tokens_in_a_call_are_too_large"),
            (COHERE, "test_a_call_over_the_limit_of_all_its_texts_is_too_large"),
            (VOYAGE, "test_a_call_over_the_limit_of_all_its_texts_is_too_large_and_says_by_which_code"),
            (MISTRAL, "test_a_call_over_the_limit_of_all_its_texts_is_too_large"),
            (JINA, "test_a_call_over_the_limit_of_all_its_texts_is_too_large"),
        ],
        "a text over the limit is too long, by its index where that is told": [
            (CONTRACT, "test_a_text_over_the_models_limit_is_too_long_with_its_index_where_it_is_told"),
            (RECOVERY, "test_a_text_named_as_too_long_costs_the_others_one_more_call_only"),
            (FAILURES, "test_a_text_the_provider_names_as_too_long_is_taken_out"),
        ],
        "cut only where somebody allowed it": [
            (COHERE, "test_texts_are_cut_only_where_the_offering_says_so"),
            (VOYAGE, "test_texts_are_cut_only_where_the_offering_says_so"),
            (JINA, "test_texts_are_cut_only_where_the_offering_says_so"),
            (VERTEX, "test_a_text_that_was_cut_though_nobody_allowed_it_is_too_long_by_its_index"),
            (REQUESTS, "test_truncate_end_cuts_the_text_and_says_which"),
        ],
        "each status, code and message in one taxonomy": [
            (CONTRACT, "test_each_status_has_its_place_in_the_taxonomy"),
            (CONTRACT, "test_an_error_page_that_is_not_the_providers_still_has_its_place"),
            (CONTRACT, "test_a_wrong_key_is_our_credential_not_the_callers_request"),
            (BEDROCK, "test_each_code_has_its_place_and_is_named"),
            (AZURE, "test_a_deployment_that_is_not_there_is_named"),
            (GEMINI, "test_a_wrong_key_is_a_400_and_our_credential_all_the_same"),
            (COHERE, "test_what_its_messages_mean"),
            (VOYAGE, "test_what_its_messages_mean"),
            (MISTRAL, "test_what_its_messages_mean_though_their_code_is_the_same"),
            (JINA, "test_what_its_error_bodies_mean"),
            (VERTEX, "test_reasons_are_named_where_they_are_known_and_only_then"),
            (FAILURES, "test_every_fault_has_a_step"),
        ],
        "429 and 503 with and without the time to come back": [
            (CONTRACT, "test_a_rate_limit_says_when_to_come_back_where_the_provider_does"),
            (CONTRACT, "test_a_provider_that_is_overloaded_says_when_to_come_back"),
            (GEMINI, "test_a_rate_limit_says_when_to_come_back_among_its_details"),
            (AZURE, "test_its_pause_is_read_in_milliseconds_before_seconds"),
            (HTTP, "test_when_to_come_back_is_read_in_all_its_forms"),
            (SIZES, "test_no_provider_asks_for_a_pause_of_years"),
        ],
        "timeouts, resets, garbage, wrong counts, wrong sizes, NaN": [
            (CONTRACT, "test_an_answer_that_is_not_what_was_asked_is_a_bad_answer"),
            (CONTRACT, "test_a_connection_that_breaks_is_a_connection_error"),
            (CONTRACT, "test_a_server_that_is_not_there_is_a_connection_error"),
            (CONTRACT, "test_a_peer_that_speaks_another_protocol_is_a_connection_error"),
            (CONTRACT, "test_no_call_takes_longer_than_its_timeout_and_its_connection_is_given_up"),
            (SIZES, "test_an_answer_without_end_is_left_off_where_it_can_be_none"),
        ],
        "one call a call, as many at once as allowed, gone when closed": [
            (CONTRACT, "test_no_more_connections_are_open_than_the_endpoint_allows"),
            (CONTRACT, "test_cancelling_a_call_passes_through_and_frees_its_connection"),
            (CONTRACT, "test_close_fails_what_is_in_flight_refuses_new_calls_and_may_be_called_again"),
            (BEDROCK, "test_calls_that_hang_starve_no_later_one"),
        ],
        "no text and no key in an error or a log line": [
            (CONTRACT, "test_neither_text_nor_key_is_logged_by_the_sdk"),
            (CONTRACT, "test_a_redirect_is_not_followed_and_carries_nothing_away"),
            (CONTRACT, "test_no_credential_or_account_of_the_environment_is_sent"),
            (POOL, "test_no_fault_repeats_the_secret_whoever_says_it"),
        ],
        "the provider's own protocol: signatures, gRPC, headers": [
            (BEDROCK, "test_a_credential_that_aws_does_not_know_is_refused_by_the_signature"),
            (BEDROCK, "test_a_clock_that_is_wrong_is_found_out"),
            (VERTEX, "test_a_request_that_is_wrong_is_refused"),
            (VERTEX, "test_the_token_is_signed_by_the_account_once_and_nothing_of_the_shell_is_told"),
            (COHERE, "test_the_server_of_these_tests_is_strict"),
            (VOYAGE, "test_the_server_of_these_tests_is_strict"),
            (MISTRAL, "test_the_server_of_these_tests_is_strict"),
            (JINA, "test_the_server_of_these_tests_is_strict"),
            (GEMINI, "test_the_server_takes_what_is_right_and_nothing_else"),
        ],
        "servers that speak OpenAI's API, each with its own errors": [
            (DIALECTS, "test_texts_get_their_own_vectors_and_tokens_as_far_as_they_are_told"),
            (DIALECTS, "test_a_text_that_is_too_long_is_found_out_with_its_place_where_it_is_told"),
            (DIALECTS, "test_too_many_texts_are_too_large_a_call_and_no_text_is_blamed"),
            (DIALECTS, "test_what_a_server_says_has_its_place_in_the_taxonomy"),
            (OPENAI, "test_without_a_key_no_credential_is_sent"),
        ],
        "an adapter that errs is found": [
            (OF_CONTRACT, "test_an_adapter_that_errs_is_found_out"),
            (OF_CONTRACT, "test_a_call_that_goes_on_after_its_time_is_found_out"),
        ],
        "the same questions to the real ones": [
            (LIVE_SUITE, "TestOfASimulatedOpenAI"),
            (LIVE_SUITE, "test_vectors_in_the_wrong_order_are_found_out"),
            (LIVE_SUITE, "test_a_server_that_cuts_texts_is_found_out"),
            (LIVE_SUITE, "test_make_live_asks_who_it_can_and_names_what_it_lacks"),
            (LIVE_SUITE, "test_without_credentials_nobody_is_asked_but_the_local_model_and_each_says_what_it_needs"),
        ],
        "facts in a table, with sources": [
            (SHIPPED, "test_every_shipped_entry_says_when_and_how_surely_it_is_known"),
            (SHIPPED, "test_openai_models_have_their_sizes_prices_and_caps"),
            (GEMINI, "test_the_release_offers_the_model_here_and_at_vertex_with_the_caps_of_each"),
            (REGISTRY, "test_every_provider_with_an_adapter_is_known_to_the_catalogue"),
            (LIVE_SUITE, "test_every_provider_with_models_in_the_release_has_an_adapter"),
        ],
        "opened from the settings, by an installed package, without loading what is not needed": [
            (REGISTRY, "test_every_provider_opens_from_a_table_of_the_settings_without_a_call"),
            (REGISTRY, "test_an_installed_package_may_offer_a_provider"),
            (REGISTRY, "test_importing_the_registry_imports_no_sdk"),
            (REGISTRY, "test_a_missing_package_is_answered_with_the_extra_to_install"),
            (VERTEX, "test_loading_the_client_does_not_hold_up_the_loop"),
        ],
    },
    "batching": {
        "many agents share few calls, at little more than the provider's time": [
            (WAITING, "test_with_64_agents_that_ask_as_fast_as_they_are_answered_calls_are_full_and_nobody_waits_long"),
            (BATCHING, "test_agents_that_ask_again_at_once_share_their_calls_at_little_more_than_the_providers_time"),
            (BATCHING, "test_agents_that_return_over_some_milliseconds_still_share_their_calls"),
            (BATCHING, "test_without_the_wait_the_agents_split_into_two_groups_that_take_turns"),
            (BENCH, "test_the_bench_measures_every_scenario_and_finds_no_wrong_answer"),
        ],
        "alone, nobody waits": [
            (WAITING, "test_alone_on_an_idle_gateway_a_request_is_sent_at_once"),
            (BATCHING, "test_a_lone_agent_never_waits"),
            (DISPATCHER, "test_an_idle_dispatcher_sends_within_the_same_instant"),
        ],
        "one text a call: full concurrency, nothing mangled": [
            (WAITING, "test_against_a_provider_of_one_text_a_call_all_of_its_slots_are_used_and_nothing_is_mixed_up"),
            (BATCHING, "test_a_provider_of_one_text_a_call_is_used_with_full_concurrency_and_nothing_is_mangled"),
            (CAPS, "test_a_provider_of_one_text_a_call_that_nobody_knew_of_gets_one_each_at_full_concurrency"),
            (VERTEX, "test_a_model_that_takes_one_text_a_call_answers_as_many_calls_at_once_as_the_endpoint_allows"),
        ],
        "waiting is bounded and told": [
            (BATCHING, "test_with_a_slow_provider_a_text_waits_the_window_and_no_longer"),
            (REGATHER, "test_the_wait_ends_when_its_time_is_up_and_does_not_start_again"),
            (DISPATCHER, "test_a_full_queue_refuses_whole_requests_and_leaves_room_for_other_tenants"),
            (COUNTING, "test_a_report_tells_the_failed_calls_time_apart_from_the_waiting"),
            (CONTRACT_ANSWERS, "test_a_result_has_every_field_of_the_contract_and_no_other"),
        ],
        "lanes by what changes a call": [
            (DISPATCHER, "test_lanes_are_told_apart_by_what_changes_a_call_and_reused_otherwise"),
            (DISPATCHER, "test_strings_and_token_lists_never_share_a_call"),
            (FLIGHTS, "test_tenants_never_share_a_text"),
        ],
        "what each lane holds and has learnt is shown": [
            (ENDPOINTS_API, "test_an_endpoint_is_shown_with_its_circuit_its_health_and_its_spaces_and_without_secrets"),
            (DISPATCHER, "test_the_gauges_show_what_is_queued_and_in_flight"),
        ],
        "single flight": [
            (FLIGHTS, "test_identical_texts_share_one_place_in_a_call_and_only_the_first_asker_pays"),
            (FLIGHTS, "test_when_the_payer_leaves_before_sending_the_next_follower_pays"),
            (FLIGHTS, "test_duplicates_within_a_request_are_sent_and_charged_once_and_all_filled"),
        ],
    },
    "caps": {
        "by items, tokens of a text, tokens of a call": [
            (CATALOGUE, "test_the_tighter_cap_of_offering_and_endpoint_binds"),
            (FAIRNESS, "test_a_call_holds_no_more_texts_or_tokens_than_its_caps_except_for_one_text_alone"),
            (DISPATCHER, "test_a_text_over_the_token_cap_of_a_call_goes_alone"),
        ],
        "learnt downwards from refusals": [
            (CAPS, "test_a_refusal_halves_what_was_sent_and_what_was_taken_bounds_it_from_below"),
            (CAPS, "test_a_cap_of_tokens_is_learnt_without_giving_up_calls_of_many_short_texts"),
            (CAPS, "test_what_is_learnt_never_exceeds_what_is_configured"),
            (CAPS, "test_a_text_that_the_provider_finds_too_long_teaches_that_such_go_alone"),
            (RECOVERY, "test_a_size_refusal_halves_the_batch_and_is_remembered"),
        ],
        "oversized requests are divided and put together again": [
            (DISPATCHER, "test_an_oversized_request_is_split_over_calls_within_the_caps_and_put_together_again"),
        ],
        "a poisonous text fails its request alone": [
            (RECOVERY, "test_a_poisonous_text_fails_its_own_request_whole_and_no_other_in_its_batch"),
            (RECOVERY, "test_several_poisonous_texts_are_each_singled_out"),
            (RECOVERY, "test_one_tenants_bad_text_is_cut_off_from_the_other_tenants_texts_first"),
            (TRIALS, "test_bad_texts_of_several_requests_are_each_found"),
            (TRIALS, "test_a_bad_text_that_travels_costs_a_bounded_number_of_calls_and_the_innocent_are_answered"),
            (FAULTS, "test_a_bad_answer_to_one_text_fails_its_request_and_no_other_that_shared_its_calls"),
        ],
        "a provider's tokens are divided so that they add up": [
            (DIVISION, "test_the_parts_add_up_exactly_and_each_is_its_share_rounded"),
            (COUNTING, "test_a_calls_count_is_divided_so_that_what_is_charged_adds_up_to_it_exactly"),
            (COUNTING, "test_a_text_never_counts_more_than_was_reserved_for_it"),
        ],
    },
    "pace": {
        "calls at once: more by one, less by half": [
            (PACE, "test_a_429_halves_the_calls_at_once_and_counts_once_for_all_that_were_under_way"),
            (PACE, "test_answers_add_back_one_call_for_each_round_up_to_what_is_configured"),
            (BATCHING, "test_an_endpoints_concurrency_is_never_exceeded"),
        ],
        "the rate that a provider allows": [
            (PACE, "test_against_a_provider_of_so_many_calls_a_second_few_429s_are_left_and_most_of_its_rate_is_used"),
            (PACE, "test_without_learning_a_large_share_of_the_calls_is_refused"),
            (PACE, "test_a_429_holds_all_lanes_of_the_endpoint_and_no_others"),
        ],
        "a pause that the provider asks for": [
            (FAILURES, "test_the_providers_retry_after_is_honoured"),
            (RECOVERY, "test_a_rate_limit_holds_the_whole_lane_for_as_long_as_the_provider_says"),
            (RECOVERY, "test_a_pause_beyond_the_deadline_fails_at_once_and_says_when_to_come_back"),
            (FAULTS, "test_a_provider_that_asks_for_a_pause_is_given_it_and_the_request_is_answered"),
        ],
    },
    "fairness": {
        "a tenant delays another by at most one batch": [
            (WAITING, "test_ten_thousand_texts_of_a_tenant_delay_another_tenants_text_by_one_call_at_most"),
            (DISPATCHER, "test_ten_thousand_queued_texts_of_one_tenant_delay_another_by_at_most_one_call"),
            (FAIRNESS, "test_a_single_text_goes_out_with_the_next_call_however_much_another_tenant_has_queued"),
            (FAIRNESS, "test_in_arrival_order_alone_the_single_text_would_wait_for_all_the_others"),
            (HANDOVER, "test_ten_thousand_texts_that_are_handed_over_delay_another_tenants_text_by_at_most_one_call"),
            (HANDOVER, "test_ten_thousand_texts_that_go_again_delay_another_tenants_new_text_and_its_next_try_by_a_few_calls_at_most"),
            (DISPATCHER, "test_a_flood_of_poisonous_texts_does_not_hold_up_another_tenants_text"),
        ],
        "tenants, and agents within one, in turn": [
            (FAIRNESS, "test_an_agent_with_one_text_is_not_held_up_by_another_agent_of_its_tenant"),
            (FAIRNESS, "test_tenants_share_tokens_where_tokens_are_what_fills_a_call"),
            (FAIRNESS, "test_sixteen_busy_tenants_all_meet_in_every_call"),
        ],
        "deadlines first within an agent, and no farther": [
            (FAIRNESS, "test_an_agents_earliest_deadline_goes_first_and_what_came_first_where_they_are_the_same"),
            (FAIRNESS, "test_deadlines_of_one_agent_do_not_move_it_ahead_of_others"),
            (RECOVERY, "test_texts_whose_deadline_passed_before_there_was_a_slot_are_failed_and_not_sent"),
        ],
    },
    "each caller its own": {
        "whatever mix of inputs, caps, splits, hits, duplicates and failures": [
            (WHOLE, "test_each_caller_gets_exactly_its_own_and_what_is_billed_adds_up"),
            (WHOLE, "test_a_row_in_the_place_of_another"),
            (WHOLE, "test_a_cached_vector_of_another_text"),
            (WHOLE, "test_a_text_that_pays_where_it_failed_and_where_it_was_answered"),
            (PROPERTIES, "test_every_waiter_gets_exactly_its_own_vectors_or_one_error"),
            (PROPERTIES, "test_two_swapped_rows_are_found"),
            (PROPERTIES, "test_a_text_sent_without_anybody_paying_is_found"),
            (PROPERTIES, "test_a_text_that_is_handed_over_and_kept_as_well_is_found"),
        ],
        "each fault at each provider: none lost, none twice, none wrong": [
            (CHAOS, "test_whatever_a_provider_does_each_request_is_answered_rightly_or_refused_and_billed_once"),
            (CHAOS, "test_two_vectors_that_change_places"),
            (CHAOS, "test_a_text_that_is_billed_where_it_failed_and_where_it_was_answered"),
            (CHAOS, "test_texts_that_are_handed_over_and_forgotten"),
            (CHAOS, "test_vectors_of_another_model_under_this_ones_name"),
        ],
        "under a running gateway": [
            (FAULTS, "test_a_provider_that_is_down_for_some_requests_is_tried_four_times_and_its_failures_are_logged"),
            (FAULTS, "test_a_provider_that_hangs_past_the_deadline_costs_its_asker_the_deadline_and_no_more"),
            (FAULTS, "test_an_unusual_but_right_answer_is_taken"),
        ],
    },
    "endpoints": {
        "several of a model, by weight and load, each as it stands": [
            (ROUTER, "test_requests_are_shared_by_weight_and_by_what_waits"),
            (ROUTER, "test_weight_0_stands_by_for_when_no_other_can_be_used"),
            (ROUTER, "test_a_degraded_endpoint_has_half_of_its_share"),
            (ROUTER, "test_who_is_in_trouble_comes_last_however_little_waits_there"),
            (ROUTER, "test_whatever_the_endpoints_are_up_to_the_best_that_may_be_sent_to_is_chosen"),
            (SENDING, "test_requests_that_are_in_flight_at_several_endpoints_are_weighted"),
            (CATALOGUE, "test_candidates_come_heavier_first_then_cheaper_then_by_name_and_unknown_prices_last"),
            (SENDING, "test_a_tenants_own_endpoint_serves_it_alone_and_first"),
            (SENDING, "test_no_other_tenants_endpoint_is_ever_gone_to"),
        ],
        "healthy, degraded, unhealthy, unknown, with hysteresis": [
            (HEALTH, "test_it_is_unknown_until_a_call_or_a_check_says_something"),
            (HEALTH, "test_three_failures_in_a_row_degrade_it_and_half_of_the_calls_make_it_unhealthy"),
            (HEALTH, "test_it_gets_better_by_good_calls_and_not_before_some_time_has_passed"),
            (HEALTH, "test_whatever_it_is_told_it_says_only_changes_and_flutters_at_most_every_ten_seconds"),
            (HEALTH, "test_calls_three_times_as_slow_as_calls_of_their_size_usually_are_degrade_it"),
        ],
        "checked where nobody calls": [
            (CONTRACT, "test_a_check_embeds_nothing_and_passes_where_the_provider_takes_our_key"),
            (CHECKS, "test_an_idle_endpoint_that_died_is_found_and_so_is_its_return"),
            (CHECKS, "test_an_endpoint_that_is_called_is_not_checked"),
        ],
        "put to work in stages": [
            (DEPLOY_API, "test_an_endpoint_is_put_to_work_in_stages_and_joins_the_pool"),
            (DEPLOYMENTS, "test_a_deployment_takes_the_steps_there_are_and_no_others"),
            (DEPLOYED, "test_what_one_gateway_puts_to_work_both_send_to_and_for_its_owner_alone"),
            (RUNNING, "test_an_endpoint_is_put_to_work_in_every_gateway_and_taken_out_without_an_error"),
        ],
        "answered at once with where to look": [
            (DEPLOY_API, "test_without_waiting_the_answer_says_where_to_look"),
            (DEPLOY_API, "test_the_call_that_the_page_of_endpoints_shows_deploys_one"),
        ],
        "each stage fails by name and gives back what it took": [
            (DEPLOY_API, "test_each_stages_failure_is_told_and_gives_back_what_it_took"),
            (DEPLOY_API, "test_the_control_for_releases_one_that_serves_holds_its_share"),
            (DEPLOYED, "test_an_endpoint_whose_vectors_are_of_another_space_is_never_registered"),
        ],
        "no more than there is": [
            (DEPLOY_API, "test_of_two_gateways_one_takes_the_last_share"),
            (DEPLOY_API, "test_the_local_model_is_refused_where_there_is_no_memory_for_it"),
            (MEMORY, "test_the_least_that_is_left_counts_and_what_says_nothing_does_not"),
            (DEPLOYMENTS, "test_whatever_happens_in_whatever_order_no_more_is_given_than_there_is"),
            (DEPLOYMENTS, "test_a_share_that_nobody_counts_would_be_given_twice"),
        ],
        "the same again changes nothing, another of the name is refused": [
            (DEPLOY_API, "test_the_same_again_changes_nothing_and_another_of_the_name_is_refused"),
            (DEPLOY_API, "test_a_name_of_the_settings_is_taken"),
        ],
        "taken out: what is under way ends": [
            (DEPLOY_API, "test_undeploying_lets_what_is_under_way_end"),
            (DEPLOY_API, "test_a_deployment_that_is_called_off_is_stopped_and_gives_back_what_it_took"),
            (POOL, "test_an_undeployed_endpoint_is_closed_when_nothing_is_under_way_there_any_more"),
        ],
        "what a dead gateway left is ended": [
            (DEPLOYED, "test_what_a_gateway_leaves_half_done_another_ends"),
            (DEPLOY_API, "test_what_a_dead_gateway_was_at_work_on_is_ended_by_another"),
        ],
        "a tenant's credential is sealed, used by its endpoints and shown to nobody": [
            (CREDENTIALS, "test_a_secret_set_by_the_command_is_opened_by_a_gateway_and_stands_nowhere_in_plain"),
            (CREDENTIALS, "test_neither_another_tenants_key_nor_another_name_opens_it"),
            (CREDENTIALS, "test_shredding_deletes_a_tenants_secrets_though_no_gateway_runs"),
            (CREDENTIALS_API, "test_a_secret_goes_in_and_never_comes_out"),
            (CREDENTIALS_CLI, "test_no_command_takes_a_secret_as_an_argument"),
            (POOL, "test_a_tenants_endpoint_gets_its_own_credential_and_nothing_of_our_environment"),
            (POOL, "test_a_new_secret_is_used_from_the_next_call_on_and_the_old_provider_ends_its_calls"),
            (DEPLOY_API, "test_a_tenants_endpoint_serves_it_alone_with_its_own_credential"),
        ],
        "no tenant reaches the operator's keys or another host": [
            (DEPLOY_API, "test_what_would_lead_to_the_operators_keys_or_elsewhere_is_for_operators"),
            (DEPLOY_API, "test_a_tenants_option_leads_to_no_other_host"),
            (DEPLOY_API, "test_what_a_tenant_has_for_itself_is_shown_with_the_catalogue_to_it_and_to_operators"),
            (BEDROCK, "test_a_tenants_endpoint_takes_nothing_of_the_installations"),
        ],
    },
    "circuits": {
        "so many failures open it, the time half opens it, so many successes close it": [
            (BREAKER, "test_five_failures_in_a_row_open_it_and_thirty_seconds_later_it_is_half_open"),
            (BREAKER, "test_two_successes_close_it_and_one_does_not"),
            (BREAKER, "test_one_failed_trial_opens_it_again_whatever_succeeded_before"),
            (BREAKER_MACHINE, "test_whatever_happens_it_is_what_the_model_says"),
            (BREAKER_MACHINE, "test_a_defect_would_be_found"),
        ],
        "half open lets exactly the trial calls through": [
            (BREAKER, "test_of_fifty_calls_at_half_open_exactly_three_reach_the_provider"),
            (BREAKER, "test_aiobreaker_alone_lets_all_fifty_through"),
            (CIRCUITS, "test_a_half_open_circuit_lets_its_trials_through_and_the_others_wait_for_it_to_close"),
            (CIRCUITS, "test_lanes_of_one_endpoint_share_the_trials"),
        ],
        "whatever the time zone": [
            (BREAKER, "test_wherever_it_runs_and_however_the_clock_is_set_it_opens_for_thirty_seconds"),
            (BREAKER, "test_aiobreaker_alone_is_hours_out_in_the_east"),
        ],
        "the provider's own errors come through": [
            (BREAKER, "test_the_error_of_the_call_that_trips_it_is_the_providers"),
            (CIRCUITS, "test_the_breaker_sees_the_providers_own_error"),
        ],
        "what counts and what does not": [
            (BREAKER, "test_a_neutral_end_neither_counts_nor_forgives"),
            (BREAKER, "test_an_excluded_error_counts_as_a_success_with_aiobreaker_alone"),
            (BREAKER, "test_a_cancelled_trial_frees_its_slot_and_says_nothing"),
            (BREAKER, "test_deadlines_that_are_too_short_do_not_trip_it_and_a_provider_that_has_become_slow_does"),
            (PINNED, "test_a_probe_that_fails_counts_for_the_circuit_as_any_call_does"),
            (TRIALS, "test_the_breaker_is_not_told_of_failures_that_a_search_expects"),
        ],
        "changes are events that other processes follow": [
            (SHARED_CIRCUITS, "test_a_circuit_that_opens_in_one_process_opens_in_the_others_until_the_same_time"),
            (SHARED_CIRCUITS, "test_a_process_that_starts_finds_circuits_open_and_those_whose_time_has_passed_half_open"),
            (SHARED_CIRCUITS, "test_clocks_that_differ_by_hours_do_not_keep_a_circuit_open_for_hours"),
            (SHARED_CIRCUITS, "test_while_the_log_is_away_the_latest_word_of_each_endpoint_is_kept_and_then_written"),
            (SHARED_MACHINE, "test_whatever_gateways_hear_and_when_nothing_is_said_twice_and_nothing_stays_open"),
            (SHARED_MACHINE, "test_a_defect_would_be_found"),
            (TWO_GATEWAYS, "test_a_circuit_that_opens_in_one_gateway_is_open_in_the_other_until_an_operator_resets_it"),
        ],
        "reset by an operator, or by the tenant whose endpoint it is": [
            (SHARED_CIRCUITS, "test_a_reset_closes_it_everywhere_and_says_who_did_it"),
            (ENDPOINTS_API, "test_an_open_circuit_is_shown_with_its_end_and_closed_by_a_reset_which_is_logged"),
            (ENDPOINTS_API, "test_a_tenant_sees_and_resets_its_own_endpoints_and_cannot_tell_that_there_are_others"),
        ],
    },
    "failover": {
        "the same space first": [
            (SENDING, "test_what_fails_at_one_endpoint_is_answered_by_the_next_in_the_same_space"),
            (HANDOVER, "test_texts_that_another_endpoint_takes_go_there_after_the_first_failure_and_are_paid_once"),
            (SENDING, "test_only_what_failed_goes_elsewhere"),
            (RUNNING, "test_a_dead_endpoint_costs_no_answer_and_its_circuit_opens_in_every_gateway"),
        ],
        "another model only where it may": [
            (SENDING, "test_another_model_embeds_it_whole_only_where_that_is_allowed"),
            (SENDING, "test_after_its_first_chunk_a_stream_stays_with_its_model"),
            (SENDING, "test_a_model_whose_quota_is_used_up_is_no_way_out"),
            (SENDING, "test_with_every_circuit_open_another_model_answers_where_it_may"),
            (SWITCHING, "test_parts_that_fail_apart_change_the_model_once"),
        ],
        "nowhere else where that is asked for": [
            (SENDING, "test_a_request_that_may_not_fail_over_is_tried_again_where_it_is"),
            (SENDING, "test_a_request_that_may_not_fail_over_is_not_sent_past_an_open_circuit"),
            (SENDING, "test_a_tenants_setting_keeps_its_requests_where_they_are_unless_they_say_otherwise"),
        ],
        "recorded, told and counted, also where the circuit was open": [
            (SENDING, "test_an_endpoint_whose_circuit_is_open_is_passed_over_and_the_answer_says_so"),
            (ROUTER, "test_who_was_first_in_line_and_is_passed_over_is_told_with_why"),
            (ROUTER, "test_whatever_failed_the_reason_of_a_failover_is_one_of_the_contracts"),
            (FAILOVER, "test_switches_are_counted_by_tenant_models_and_reason"),
            (FAILOVER, "test_a_switched_request_that_fails_says_so_too"),
            (SENDING, "test_where_every_endpoint_of_the_space_fails_the_sender_is_told_of_each"),
            (PROVIDER_HEALTH, "test_the_view_tells_what_requests_met_and_how_each_endpoint_stands"),
        ],
        "four calls at most, with pauses": [
            (FAILURES, "test_a_fault_that_may_pass_is_tried_again_whole_at_most_four_times"),
            (FAILURES, "test_pauses_grow_by_half_are_jittered_by_half_and_are_capped"),
            (HANDOVER, "test_endpoints_that_all_fail_end_a_request_after_four_calls_wherever_they_were"),
        ],
        "within the deadline": [
            (HANDOVER, "test_a_hang_leaves_half_of_the_time_for_another_endpoint_where_there_is_one"),
            (FAILURES, "test_a_try_that_would_start_after_every_deadline_is_not_planned"),
            (RECOVERY, "test_a_call_may_take_as_long_as_the_endpoint_or_its_most_patient_waiter_allows"),
            (RUNNING, "test_an_endpoint_that_hangs_is_left_in_time_for_another_to_answer"),
        ],
        "what failed tries may cost is recorded, and billed to nobody": [
            (SENDING, "test_a_call_that_may_be_charged_for_nothing_is_recorded_as_our_cost"),
            (SENDING, "test_it_reserves_at_the_dearest_endpoint_and_is_billed_where_it_is_answered"),
            (SWITCHING, "test_each_text_costs_us_what_the_endpoint_charges_that_answered_it"),
        ],
        "with every circuit open nothing is spent, and what is cached is answered": [
            (SENDING, "test_with_every_circuit_open_a_request_is_refused_before_it_is_logged"),
            (SENDING, "test_with_every_circuit_open_what_is_cached_is_answered_still"),
            (CIRCUITS, "test_an_open_circuit_sends_nothing_and_says_when_to_come_back"),
        ],
    },
    "attestation": {
        "before an endpoint serves a space": [
            (SENDING, "test_an_unattested_endpoint_is_attested_by_its_first_request"),
            (ATTESTATIONS, "test_a_hundred_that_wait_ask_once_and_one_that_leaves_takes_nobody_along"),
            (ATTESTED, "test_the_first_request_attests_its_endpoint_and_one_that_drifts_serves_no_more_in_any_process"),
        ],
        "from time to time after": [
            (ATTESTATIONS, "test_attestations_come_due_within_their_period_and_not_all_at_once"),
            (ATTESTATIONS, "test_a_tenants_endpoints_that_hang_hold_up_nobody_elses_attestation"),
        ],
        "references from the first endpoint, kept": [
            (ATTESTATIONS, "test_the_first_endpoint_gives_the_references_and_others_are_held_against_them"),
            (ATTESTATIONS, "test_an_endpoint_that_is_wrong_from_the_start_does_not_serve_and_gives_no_references"),
            (REFERENCES, "test_the_first_who_brings_references_wins_with_all_of_them"),
            (REFERENCES, "test_nobody_who_serves_requests_can_change_a_reference"),
        ],
        "drift is quarantine, in every process, with an alert": [
            (ATTESTATIONS, "test_a_silent_change_of_vectors_is_found_and_keeps_that_endpoint_out_of_the_space_alone"),
            (SENDING, "test_nothing_is_sent_to_an_endpoint_whose_vectors_have_drifted"),
            (ENDPOINT_ALERTS, "test_drift_is_told_of_each_space_while_the_endpoint_is_configured_so"),
            (RUNNING, "test_an_endpoint_that_serves_another_model_than_it_says_answers_nobody"),
            (ATTESTATIONS, "test_quarantine_is_tried_again_an_hour_later_and_lifted_by_passing"),
        ],
        "a probe that fails is a failed attempt and no drift": [
            (SENDING, "test_an_attestation_that_fails_is_a_failed_attempt_like_any_other"),
            (SENDING, "test_an_attestation_that_fails_at_the_only_endpoint_is_tried_again"),
            (ATTESTATIONS, "test_probes_that_are_not_answered_are_a_failed_attempt_and_no_drift"),
            (PINNED, "test_a_probe_that_fails_counts_for_the_circuit_as_any_call_does"),
        ],
        "another configuration is another endpoint": [
            (ATTESTATIONS, "test_another_configuration_is_another_endpoint"),
            (ATTESTED_FOR, "test_another_model_behind_an_offering_is_to_be_attested_anew"),
        ],
        "a tenant decides for nobody else": [
            (ATTESTATIONS, "test_a_tenants_endpoint_gives_no_references_to_others_and_is_held_against_its_own"),
            (ATTESTATIONS, "test_a_tenants_endpoint_cannot_be_made_to_give_the_space_new_references"),
        ],
        "on order, by command and over HTTP": [
            (MODELS, "test_commands_validate_a_model_and_attest_its_endpoint_on_a_server_that_speaks_openais_api"),
            (ATTEST_API, "test_an_operator_has_a_models_endpoints_attested_and_is_told_what_was_found"),
            (ATTEST_API, "test_nobody_else_has_anything_attested"),
            (ATTESTATIONS, "test_new_references_are_taken_on_order_and_unattest_every_endpoint_of_the_space"),
        ],
        "within a budget": [
            (ATTESTED, "test_a_model_of_unknown_price_is_attested_within_its_tokens_and_not_beyond"),
            (ATTESTATIONS, "test_sizes_that_are_freely_chosen_go_by_the_models_own_and_are_not_asked_for"),
        ],
    },
    "cache": {
        "the process's, then the shared one, per text": [
            (CACHING, "test_of_a_request_that_is_cached_in_part_the_other_texts_alone_are_asked_for"),
            (CACHING, "test_the_shared_cache_is_asked_only_for_what_the_process_has_not"),
            (REDIS, "test_what_one_process_puts_another_finds_and_what_nobody_put_is_missing"),
            (REDIS, "test_look_ups_of_one_turn_share_a_round_trip_and_each_gets_its_own"),
        ],
        "for an hour": [
            (LRU, "test_entries_are_gone_after_their_time_to_live"),
            (REDIS, "test_entries_expire"),
            ("tests/unit/test_settings.py", "test_without_any_source_the_defaults_serve_the_local_model_on_loopback"),
        ],
        "bounded memory": [
            (LRU, "test_its_bytes_never_pass_the_bound_and_are_counted_exactly"),
            (LRU, "test_the_least_recently_used_leave_first"),
        ],
        "refresh and off": [
            (CACHING, "test_refresh_and_off_read_from_neither_cache"),
            (CACHING, "test_off_keeps_nothing_anywhere_and_refresh_does"),
        ],
        "what changes a vector is in the key, what changes its form is not": [
            (CACHING, "test_what_makes_another_vector_is_in_the_key"),
            (CACHING, "test_what_bears_on_no_vector_is_not_in_the_key"),
            (CACHING, "test_a_text_that_was_cut_is_kept_as_what_was_left_of_it"),
        ],
        "no tenant's entries are another's, and nothing wrong gets in": [
            (CACHING, "test_no_tenant_finds_what_another_has_put"),
            (CACHING, "test_a_vector_of_another_size_in_the_shared_cache_is_no_hit"),
            (CACHING, "test_a_request_that_fails_leaves_nothing_in_either_cache"),
            (CACHING, "test_what_is_cached_of_a_model_whose_endpoint_is_found_to_drift_is_not_answered_with_any_more"),
        ],
        "without the shared one, slower and not wrong": [
            (CACHING, "test_without_the_shared_cache_requests_are_answered_all_the_same"),
            (REDIS, "test_an_unreachable_server_answers_nothing_found_at_once_and_costs_no_waiting"),
        ],
        "the hit ratio of each tenant": [
            (CACHING, "test_hits_by_look_ups_are_the_hit_ratio_of_each_tenant"),
            (METRICS, "test_what_a_gateway_does_shows_in_its_metrics_under_the_names_and_labels_that_dashboards_use"),
        ],
    },
    "encodings": {
        "all four, of every provider and of the cache": [
            (CONTRACT, "test_what_is_answered_comes_out_right_in_every_encoding"),
            (WIRE, "test_every_encoding_says_the_same_vector_as_exactly_as_it_can"),
        ],
        "sizes by the provider, or cut and brought to length one": [
            (ANSWERS, "test_vectors_are_cut_here_where_the_provider_makes_one_size_only_and_brought_to_length_one"),
            (ANSWERS, "test_a_provider_that_makes_other_sizes_is_asked_for_them_and_must_answer_with_them"),
            (CATALOGUE, "test_a_model_supports_its_default_size_and_those_listed_and_no_other"),
            (VECTORS, "test_what_is_cut_keeps_its_direction_and_has_length_one"),
            (VECTORS, "test_only_what_is_off_by_more_than_rounding_is_brought_to_length_one"),
        ],
        "no vector is none": [
            (ANSWERS, "test_a_vector_that_is_none_is_an_answer_of_no_use"),
            (VECTORS, "test_a_number_that_is_not_finite_is_found_wherever_it_is"),
        ],
    },
    "seen and steered": {
        "endpoints, circuits and their health over HTTP": [
            (ENDPOINTS_API, "test_an_endpoint_is_shown_with_its_circuit_its_health_and_its_spaces_and_without_secrets"),
            (ENDPOINTS_API, "test_health_and_metrics_follow_calls_and_circuits"),
            (PROVIDER_HEALTH, "test_operators_read_it_over_http_and_nobody_else"),
        ],
        "by command": [
            (ENDPOINTS_CLI, "test_endpoints_are_listed_shown_and_their_circuits_reset"),
            (PROVIDER_HEALTH, "test_a_command_shows_it"),
            (DEPLOYED, "test_the_commands_list_what_gateways_have_deployed_and_say_why_one_cannot_be"),
            (ENDPOINTS_PAGE, "test_every_command_of_the_page_does_what_it_says"),
        ],
        "in one document, one scope each": [
            (SCHEMA, "test_every_answer_is_one_that_is_documented"),
            (API_PAGE, "test_the_page_in_the_repository_is_the_one_that_the_code_makes"),
            (ISOLATION, "test_no_key_gets_past_its_scope_or_its_tenant"),
        ],
        "alerts": [
            (ENDPOINT_ALERTS, "test_a_circuit_that_stays_open_is_told_after_a_moment_and_until_it_is_closed"),
            (ENDPOINT_ALERTS, "test_an_endpoint_that_is_unhealthy_for_a_minute_is_told_unless_its_open_circuit_says_it"),
            (ALERTS, "test_a_circuit_that_stays_open_is_told_to_whom_its_endpoint_belongs_until_it_is_closed"),
            (ALERTS, "test_a_failover_is_told_until_it_has_been_quiet"),
        ],
        "metrics and traces": [
            (METRICS, "test_every_metric_has_the_labels_of_its_name_and_none_names_an_agent_a_thread_or_a_request"),
            (RULES, "test_the_page_of_operations_lists_every_metric_with_its_labels"),
            (SHARED_CIRCUITS, "test_changes_are_counted"),
            ("tests/unit/test_tracing.py", "test_a_result_is_a_server_span_of_its_callers_trace_with_the_provider_call_inside"),
            (TRACES, "test_spans_reach_the_configured_exporter_and_the_most_talkative_log_holds_no_text_and_no_key"),
        ],
        "documents say what is so": [
            (REPOSITORY, "test_every_emberlog_command_in_a_document_exists"),
            (REPOSITORY, "test_every_route_in_a_document_exists"),
            (REPOSITORY, "test_every_settings_example_is_accepted"),
        ],
        "events that every release reads": [
            (CORPUS, "test_the_corpus_has_each_type_of_today_with_every_field_and_with_the_required_ones_only"),
            (PROVIDER_HEALTH, "test_the_view_tells_what_requests_met_and_how_each_endpoint_stands"),
        ],
    },
}  # fmt: skip
ALL = flat({**SCENARIOS, "the contract of": HELD_TO_IT})


@pytest.mark.parametrize(
    ("scenario", "path", "name"), ALL, ids=[f"{scenario} {n}" for n, (scenario, *_) in enumerate(ALL)]
)
def test_every_scenario_has_its_test(scenario: str, path: str, name: str) -> None:
    assert name in shown_in(path), f"{scenario}: {path} has no test of this name"


def test_every_provider_is_held_to_the_contract() -> None:
    assert HELD_TO_IT.keys() == PROVIDERS.keys()
    for path, name in (place for provider, held in HELD_TO_IT.items() if provider != "local" for place in held):
        module = import_module(path.removesuffix(".py").replace("/", "."))
        assert issubclass(getattr(module, name), ProviderContract), name


def test_a_name_that_there_is_not_would_be_found() -> None:
    assert "test_nothing_of_the_kind" not in shown_in(CONTRACT)
    assert "test_each_status_has_its_place_in_the_taxonomy" in shown_in(CONTRACT)
    assert "TestVoyageKeepsTheContract" in shown_in(VOYAGE)
