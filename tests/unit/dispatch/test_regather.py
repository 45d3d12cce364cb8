import pytest

from gateway.dispatch.regather import Regather


@pytest.fixture
def regather() -> Regather:
    return Regather(0.005, 0.100)


def test_nothing_is_held_before_any_call_has_answered(regather: Regather) -> None:
    assert regather.hold(1.0) is None


def test_after_a_call_the_lane_holds_until_as_many_requests_have_come_as_it_answered(regather: Regather) -> None:
    regather.answer(2, 1.0)
    assert regather.hold(1.001) == pytest.approx(1.005)
    regather.arrive(1.002)
    assert regather.hold(1.002) == pytest.approx(1.005)
    regather.arrive(1.003)
    assert regather.hold(1.003) is None


def test_the_wait_ends_when_its_time_is_up_and_does_not_start_again(regather: Regather) -> None:
    regather.answer(64, 1.0)
    assert regather.hold(1.005) is None
    assert regather.hold(1.0051) is None


def test_the_clock_starts_when_the_answers_have_passed_the_log(regather: Regather) -> None:
    regather.announce(0.0)
    regather.arrive(0.004)
    regather.answer(2, 1.0)
    assert regather.hold(1.006) == pytest.approx(1.009)


def test_requests_that_are_being_committed_when_the_time_is_up_are_waited_for(regather: Regather) -> None:
    regather.answer(10, 1.0)
    regather.announce(1.004)
    regather.announce(1.004)
    assert regather.hold(1.005) == pytest.approx(1.100)
    regather.arrive(1.007)
    assert regather.hold(1.007) is not None
    regather.retract()
    assert regather.hold(1.007) is None


def test_a_log_that_hangs_is_not_waited_for_beyond_the_window(regather: Regather) -> None:
    regather.answer(10, 1.0)
    regather.announce(1.004)
    assert regather.hold(1.005) is not None
    assert regather.hold(1.100) is None


def test_a_slow_commit_lengthens_the_wait_by_a_bounded_time(regather: Regather) -> None:
    regather.announce(0.0)
    regather.arrive(30.0)
    assert regather.commit == pytest.approx(0.050)


def test_answers_of_several_calls_add_up_while_the_wait_lasts(regather: Regather) -> None:
    regather.answer(1, 1.0)
    regather.answer(2, 1.001)
    for _ in range(2):
        regather.arrive(1.002)
    assert regather.hold(1.002) == pytest.approx(1.006)
    regather.answer(1, 2.0)
    regather.arrive(2.001)
    assert regather.hold(2.001) is None
