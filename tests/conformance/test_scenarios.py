"""Which test shows what of the event log and its views: each scenario that they have to survive, and the tests that put it through. A test of that name
must be there, and what is Postgres's own must run on the oldest supported Postgres too.
"""

from __future__ import annotations

import re

import pytest

from tests.support.scenarios import ROOT, Shown, flat, shown_in

LOG = "tests/conformance/test_event_log.py"
CLOCK = "tests/conformance/test_event_log_clock.py"
EVOLUTION = "tests/conformance/test_event_log_evolution.py"
ORDER = "tests/integration/test_log_order.py"
FAULTS = "tests/integration/test_log_faults.py"
APPEND_ONLY = "tests/integration/test_append_only.py"
APPENDER = "tests/integration/test_appender.py"
DISK = "tests/integration/test_disk_full.py"
VERIFY = "tests/integration/test_log_verify.py"
COMMANDS = "tests/integration/test_cli_commands.py"
CRASH = "tests/acceptance/test_crash.py"
GATEWAY = "tests/acceptance/test_log_faults.py"
PAUSE = "tests/acceptance/test_pause.py"
SHRED = "tests/integration/test_shred.py"
VIEWS = "tests/conformance/test_projections.py"
MACHINE = "tests/conformance/test_projections_machine.py"
PARKING = "tests/integration/test_parking.py"
REBUILD = "tests/integration/test_rebuild.py"

SCENARIOS: dict[str, dict[str, Shown]] = {
    "order": {
        "one transaction open while another would commit": [
            (ORDER, "test_an_append_waits_for_one_that_is_open_and_readers_see_neither_before_its_commit"),
            (ORDER, "test_fencing_waits_for_an_append_that_is_open_and_its_head_lies_behind_it"),
        ],
        "a transaction rolled back": [
            (ORDER, "test_an_append_that_is_rolled_back_leaves_no_hole_and_its_events_can_be_sent_again"),
        ],
        "three overlapping": [
            (ORDER, "test_three_overlapping_appends_take_dense_positions_in_the_order_of_their_commits"),
        ],
        "the loser of a conflict leaves no hole": [
            (LOG, "test_a_conflict_fails_alone_says_the_version_and_leaves_no_hole"),
        ],
        "a long write transaction in another database, an idle session in this one": [
            (ORDER, "test_a_session_that_stays_open_for_long_stalls_neither_appends_nor_readers"),
        ],
        "a backend killed in the middle of a batch": [
            (APPEND_ONLY, "test_a_backend_killed_in_the_middle_of_a_batch_leaves_nothing_and_the_retry_writes_each_event_once"),
            (APPENDER, "test_a_backend_killed_without_warning_under_load_loses_nothing_and_writes_nothing_twice"),
        ],
        "the appending process killed in the middle of a batch": [
            (ORDER, "test_a_process_killed_while_it_appends_leaves_whole_batches_and_the_next_writes_each_once"),
            (ORDER, "test_a_process_killed_while_its_batch_waits_leaves_all_of_it_or_nothing"),
            (ORDER, "test_a_batch_that_is_torn_twice_or_there_in_part_is_noticed"),
        ],
        "many writers and readers with pauses, and the same without the lock": [
            (ORDER, "test_every_reader_sees_every_position_once_and_in_order_under_many_writers_with_random_pauses"),
            (ORDER, "test_without_the_lock_the_same_soak_fails"),
            (LOG, "test_a_reader_that_follows_concurrent_appenders_misses_nothing"),
        ],
        "contiguity": [
            (ORDER, "test_a_page_with_a_hole_is_refused_and_says_where"),
            (ORDER, "test_positions_of_a_sequence_would_be_lost_to_a_reader_that_ours_stops"),
        ],
        "the isolation level": [(APPEND_ONLY, "test_a_stricter_isolation_level_is_refused")],
        "two gateways see each other": [
            (LOG, "test_two_logs_on_one_storage_see_each_other"),
            (GATEWAY, "test_gateways_whose_clocks_are_days_apart_write_one_log_in_order_and_bill_each_request_once"),
        ],
        "a fenced instance": [
            (LOG, "test_a_fenced_instance_is_refused_and_writes_nothing"),
            (ORDER, "test_an_append_that_waited_while_its_instance_was_fenced_is_refused"),
            (PAUSE, "test_a_paused_gateway_that_comes_back_bills_nothing_that_another_has_taken_over"),
        ],
    },
    "append": {
        "expected versions": [
            (LOG, "test_an_expected_version_is_none_of_facts_any_or_exactly_the_number_of_events_before"),
        ],
        "one winner of many": [(LOG, "test_of_many_that_expect_the_same_version_one_wins")],
        "a duplicate in the same batch": [
            (LOG, "test_a_duplicate_in_the_same_batch_is_answered_with_the_first_position"),
            (LOG, "test_a_key_whose_first_copy_conflicts_is_free_for_the_second"),
            (LOG, "test_a_key_whose_first_copy_is_refused_for_its_data_is_free_for_the_second"),
        ],
        "a duplicate later, after a restart, with another body": [
            (LOG, "test_a_later_duplicate_is_answered_with_the_first_position_and_its_neighbours_are_appended"),
            (LOG, "test_a_duplicate_is_known_after_a_restart"),
            (LOG, "test_a_taken_key_with_another_fingerprint_is_a_mismatch"),
        ],
        "the whole dedupe window": [
            (CLOCK, "test_a_key_of_one_minute_past_midnight_is_known_until_the_next_day_ends_and_free_after_it"),
            (CLOCK, "test_over_the_whole_window_a_key_is_known_with_its_body_and_asking_again_does_not_prolong_it"),
            (CLOCK, "test_with_only_todays_keys_probed_the_window_would_be_too_short"),
        ],
        "a bad item among good ones": [
            (LOG, "test_a_bad_event_is_refused_alone"),
            (LOG, "test_a_wrong_version_ahead_of_a_right_one_of_the_same_stream_harms_it_not"),
            (APPENDER, "test_an_event_that_the_log_chokes_on_fails_alone"),
        ],
        "cancelled after it was submitted": [
            (APPENDER, "test_a_cancelled_wait_unsends_nothing_and_harms_no_other_of_its_batch"),
            (APPENDER, "test_a_batch_cancelled_on_its_way_is_there_whole_or_not_at_all_and_the_log_goes_on"),
        ],
        "the lock not had in time": [
            (APPEND_ONLY, "test_a_lock_held_too_long_is_unavailable_and_the_batch_can_be_sent_again"),
            (APPENDER, "test_an_appender_waits_out_a_lock_held_too_long_and_writes_everything"),
        ],
        "back-pressure": [
            (APPENDER, "test_refusable_events_are_refused_at_the_soft_bound_and_others_taken_up_to_the_hard_one"),
        ],
        "drain": [
            (APPENDER, "test_draining_says_whether_everything_was_answered_in_time"),
            (APPENDER, "test_closing_answers_what_is_left"),
        ],
        "attacked as the application's role": [
            (APPEND_ONLY, "test_the_application_role_has_no_right_to_change_an_event"),
            (APPEND_ONLY, "test_the_application_cannot_go_around_the_functions"),
            (APPEND_ONLY, "test_the_application_cannot_grant_itself_a_right"),
            (APPEND_ONLY, "test_nothing_that_runs_with_the_owners_rights_reads_the_applications_views"),
            (APPEND_ONLY, "test_a_type_in_a_temporary_schema_does_not_get_the_owners_rights"),
            (APPEND_ONLY, "test_with_the_temporary_schema_in_its_usual_place_it_would_get_them"),
            (APPEND_ONLY, "test_the_owner_has_the_rights_that_the_application_lacks"),
            (APPEND_ONLY, "test_a_trigger_refuses_every_change_of_an_event_to_the_owner"),
            (APPEND_ONLY, "test_without_its_trigger_the_owner_could_change_an_event"),
        ],
        "events of other releases": [
            (EVOLUTION, "test_every_event_of_every_release_is_kept_and_read_as_the_fact_it_was"),
            (EVOLUTION, "test_an_old_event_is_read_in_todays_shape_and_stays_in_its_own_in_the_log"),
            (EVOLUTION, "test_an_event_of_a_type_or_version_that_this_build_does_not_know_is_kept_and_passed"),
        ],
        "a changed event": [
            (VERIFY, "test_the_first_event_at_fault_is_named"),
            (VERIFY, "test_without_the_content_hash_a_changed_event_would_go_unseen"),
        ],
        "a shredded tenant": [
            (SHRED, "test_the_log_keeps_its_hashes_and_its_chain"),
            (SHRED, "test_a_dictionary_finds_no_text_without_the_key_and_after_the_shred_nobody_has_the_key"),
        ],
    },
    "projections": {
        "a crash between the view and its cursor": [
            (VIEWS, "test_a_crash_between_view_and_cursor_leaves_neither"),
            (VIEWS, "test_crashes_at_any_point_of_a_batch_count_nothing_twice"),
            (VIEWS, "test_with_the_cursor_in_a_transaction_of_its_own_a_crash_counts_twice"),
        ],
        "two owners": [(VIEWS, "test_two_runners_at_once_fold_each_event_once")],
        "an owner that returns late": [
            (VIEWS, "test_an_owner_that_returns_late_changes_nothing"),
            (VIEWS, "test_a_process_stopped_by_a_signal_is_replaced_and_harms_nothing_when_it_goes_on"),
        ],
        "halted and parked, mended, like a clean rebuild": [
            (PARKING, "test_one_view_halts_and_the_other_goes_on_without_the_event_and_both_say_so_once"),
            (VIEWS, "test_a_view_that_went_on_without_events_equals_a_clean_fold_once_they_are_folded"),
        ],
        "batches of any size, replay byte for byte": [
            (VIEWS, "test_batches_of_any_size_and_in_bulk_give_the_view_of_the_plain_fold"),
            (VIEWS, "test_replaying_the_log_gives_the_view_byte_for_byte"),
            (VIEWS, "test_one_event_less_or_one_number_off_is_another_digest"),
        ],
        "an independent plain fold": [
            (VIEWS, "test_every_projection_has_a_plain_fold_to_be_held_against"),
            (MACHINE, "test_whatever_happens_a_view_is_the_plain_fold_of_what_it_has_folded"),
            (MACHINE, "test_a_fold_that_counts_an_event_twice_is_found"),
        ],
        "stalled told from lagging": [
            (VIEWS, "test_stalled_is_told_from_lagging_and_both_from_halted"),
            (VIEWS, "test_the_database_tells_stalled_from_lagging_and_both_from_halted"),
        ],
    },
    "rebuild": {
        "under load, cut over at once": [
            (REBUILD, "test_under_load_a_rebuild_takes_the_views_place_and_no_reader_notices"),
            (REBUILD, "test_a_reader_would_notice_a_view_that_is_swapped_half_way"),
        ],
        "a planted difference": [
            (REBUILD, "test_a_planted_difference_is_named_and_keeps_the_new_generation_from_taking_over"),
            (REBUILD, "test_a_comparison_that_leaves_a_column_out_misses_what_was_planted_in_it"),
        ],
        "killed and gone on with": [
            (REBUILD, "test_a_rebuild_that_was_killed_is_gone_on_with_from_where_it_stood"),
            (REBUILD, "test_a_rebuild_that_dies_as_it_takes_the_views_place_has_changed_nothing"),
        ],
        "two at once": [
            (REBUILD, "test_of_two_rebuilds_at_once_the_second_is_refused_and_the_first_ends_well"),
            (REBUILD, "test_of_rebuilds_begun_at_the_same_moment_one_goes_on"),
        ],
        "rolled back": [
            (REBUILD, "test_a_rollback_reads_the_generation_before_caught_up_and_another_goes_forward_again"),
        ],
        "as of the past": [
            (REBUILD, "test_the_view_as_of_a_position_has_the_digest_that_the_live_view_had_there"),
            (REBUILD, "test_a_time_is_the_position_of_the_last_event_up_to_it"),
        ],
        "across an archived segment": [(REBUILD, "test_everything_holds_across_events_that_were_archived")],
        "a halted view": [(REBUILD, "test_a_halted_view_is_not_rebuilt_until_it_goes_on")],
    },
    "faults": {
        "the line cut": [
            (FAULTS, "test_an_append_cut_at_any_byte_is_there_whole_or_not_at_all_and_the_retry_writes_it_once"),
            (FAULTS, "test_a_reader_cut_in_the_middle_of_answers_goes_on_where_it_was_and_sees_every_event_once"),
            (FAULTS, "test_a_fold_cut_between_the_view_and_the_cursor_leaves_neither_and_is_done_again"),
            (FAULTS, "test_folds_cut_again_and_again_at_any_byte_equal_a_clean_fold"),
            (APPENDER, "test_through_a_line_that_is_cut_again_and_again_every_event_is_written_once_and_in_order"),
        ],
        "the line silent": [
            (FAULTS, "test_a_server_that_takes_connections_and_never_answers_is_out_of_reach"),
            (FAULTS, "test_an_appender_on_a_silent_line_says_so_and_writes_everything_once_when_the_line_speaks_again"),
            (FAULTS, "test_a_runner_on_a_silent_line_is_replaced_and_harms_nothing_when_the_line_speaks_again"),
        ],
        "Postgres restarted under load": [
            (FAULTS, "test_a_server_ended_under_load_comes_back_and_writers_readers_and_views_go_on_by_themselves"),
            (GATEWAY, "test_a_database_that_is_shut_down_under_load_is_started_again_and_no_caller_notices"),
            (CRASH, "test_embedded_servers_killed_under_load_come_back_by_themselves_and_no_caller_notices"),
        ],
        "the disk full": [
            (DISK, "test_appends_to_a_full_disk_are_refused_for_now_and_go_on_by_themselves_when_there_is_space"),
            (DISK, "test_a_server_that_died_for_want_of_space_and_cannot_start_comes_back_with_everything_when_there_is_some"),
            (DISK, "test_views_wait_while_the_disk_is_full_and_are_right_when_they_have_gone_on"),
            (GATEWAY, "test_with_a_full_disk_askers_are_told_to_come_again_and_with_space_everything_goes_on"),
        ],
        "a clock that jumps": [
            (CLOCK, "test_recorded_at_never_decreases_however_the_clock_jumps"),
            (CLOCK, "test_while_the_clock_is_back_new_keys_are_found_and_old_ones_not_forgotten"),
            (CLOCK, "test_leases_run_out_by_the_logs_clock_and_one_that_goes_back_fences_nobody"),
            (GATEWAY, "test_gateways_whose_clocks_are_days_apart_write_one_log_in_order_and_bill_each_request_once"),
        ],
        "a cursor from elsewhere": [
            (COMMANDS, "test_a_cursor_of_another_log_and_one_ahead_of_the_log_are_refused_and_the_log_is_untouched"),
        ],
    },
}  # fmt: skip
ALL = flat(SCENARIOS)
ON_OLDEST = {ORDER, APPEND_ONLY, APPENDER, FAULTS, DISK, LOG, CLOCK, EVOLUTION, VIEWS, MACHINE}
"""What is Postgres's own; the others go through a whole gateway, or do not depend on the server's version."""


@pytest.mark.parametrize(
    ("scenario", "path", "name"), ALL, ids=[f"{scenario} {n}" for n, (scenario, *_) in enumerate(ALL)]
)
def test_every_scenario_has_its_test(scenario: str, path: str, name: str) -> None:
    assert name in shown_in(path), f"{scenario}: {path} has no test of this name"


def test_what_is_postgres_own_runs_on_the_oldest_one_too() -> None:
    found = re.search(r"^ON_16 := (.*)$", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert found is not None
    listed = [ROOT / path for path in found[1].split()]
    for path in ON_OLDEST:
        assert any((ROOT / path).is_relative_to(place) for place in listed), f"{path} is not in ON_16 of the Makefile"
