"""The health of an endpoint: what makes it worse at once, what makes it better after a while, and what is none of its business."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from domain.catalogue import Endpoint
from domain.endpoint_health import BETTER_SECONDS, WINDOW, EndpointHealth, Health, patience
from domain.ports.breaker import CircuitState
from domain.ports.provider import ProviderFault

HEALTHY, DEGRADED, UNHEALTHY, UNKNOWN = Health.HEALTHY, Health.DEGRADED, Health.UNHEALTHY, Health.UNKNOWN
OPEN, HALF_OPEN, CLOSED = CircuitState.OPEN, CircuitState.HALF_OPEN, CircuitState.CLOSED
SERVER, AUTHENTICATION, CONNECTION = ProviderFault.SERVER, ProviderFault.AUTHENTICATION, ProviderFault.CONNECTION
LATER = BETTER_SECONDS


class Seen(EndpointHealth):
    """With a clock that stands still unless a test moves it."""

    now = 0.0

    def call(self, *faults: ProviderFault | None, seconds: float = 0.1, tokens: int = 100) -> Health:
        for fault in faults:
            self.called(fault, "small", tokens, seconds, self.now)
        return self.health

    def check(self, *faults: ProviderFault | None) -> Health:
        for fault in faults:
            self.checked(fault, self.now)
        return self.health

    def stand(self, state: CircuitState) -> Health:
        self.circuit(state, self.now)
        return self.health


@pytest.fixture
def seen() -> Seen:
    return Seen()


def test_it_is_unknown_until_a_call_or_a_check_says_something(seen: Seen) -> None:
    assert seen.health is UNKNOWN
    assert seen.call(ProviderFault.RATE_LIMITED, ProviderFault.REFUSED, ProviderFault.TOO_LONG) is UNKNOWN
    assert seen.check(None) is HEALTHY
    assert Seen().call(None) is HEALTHY
    assert Seen().call(SERVER) is DEGRADED
    assert Seen().check(CONNECTION) is DEGRADED


@pytest.mark.parametrize("fault", [ProviderFault.RATE_LIMITED, ProviderFault.REFUSED, ProviderFault.TOO_LARGE])
def test_a_pause_asked_for_and_what_a_text_is_to_blame_for_are_no_ill_health(seen: Seen, fault: ProviderFault) -> None:
    seen.call(None)
    assert seen.call(*[fault] * 100) is HEALTHY
    assert seen.check(ProviderFault.RATE_LIMITED) is HEALTHY


def test_a_timeout_of_a_call_whose_sender_had_no_time_says_nothing() -> None:
    seen = Seen(patience=5.0)
    seen.call(*[None] * 20, seconds=0.1)
    assert seen.call(*[ProviderFault.TIMEOUT] * 30, seconds=0.2) is HEALTHY
    assert (
        seen.call(*[ProviderFault.TIMEOUT] * 30, seconds=2.0, tokens=10_000) is HEALTHY
    )  # of that size nothing is known
    assert seen.call(*[ProviderFault.TIMEOUT] * 3, seconds=0.4) is DEGRADED
    assert Seen(patience=5.0).call(ProviderFault.TIMEOUT, seconds=5.0) is DEGRADED


def test_how_long_a_call_must_be_given_is_bounded_by_the_endpoints_own_timeout() -> None:
    assert patience(Endpoint("e", "p", {}, timeout=30.0)) == 5.0
    assert patience(Endpoint("e", "p", {}, timeout=1.0)) == pytest.approx(0.9)


def test_bad_answers_make_it_degraded_at_most(seen: Seen) -> None:
    assert seen.call(None, *[ProviderFault.BAD_ANSWER] * 100) is DEGRADED


def test_three_failures_in_a_row_degrade_it_and_half_of_the_calls_make_it_unhealthy(seen: Seen) -> None:
    assert seen.call(*[None] * 20, SERVER, SERVER) is HEALTHY
    assert seen.call(SERVER) is DEGRADED
    assert seen.call(*[SERVER, None] * 12) is DEGRADED
    assert seen.call(*[SERVER, None] * 8) is UNHEALTHY
    assert "calls failed" in seen.reason


def test_it_gets_better_by_good_calls_and_not_before_some_time_has_passed(seen: Seen) -> None:
    seen.call(*[None] * 40, *[SERVER] * 5)
    assert seen.call(*[None] * 50) is DEGRADED
    seen.now += LATER
    assert seen.call(None) is HEALTHY


def test_between_the_two_shares_it_stays_as_it_was(seen: Seen) -> None:
    some = ([SERVER] + [None] * 12) * 4  # 3 or 4 of 40: more than 5 %, not more than 10
    assert seen.call(*[None] * 40, *some) is HEALTHY
    seen.call(SERVER, SERVER, SERVER)
    assert seen.health is DEGRADED
    for _ in range(10):
        seen.now += LATER
        assert seen.call(*some) is DEGRADED


def test_a_refused_credential_makes_it_unhealthy_until_two_signs_of_life(seen: Seen) -> None:
    seen.check(None)
    assert seen.call(None, AUTHENTICATION, AUTHENTICATION) is UNHEALTHY
    assert "credential" in seen.reason
    seen.now += LATER
    assert seen.check(AUTHENTICATION, None) is UNHEALTHY
    assert seen.check(None) is DEGRADED
    seen.now += LATER
    assert seen.check(None) is HEALTHY


def test_a_check_that_never_took_our_credential_says_only_that_somebody_is_there(seen: Seen) -> None:
    """Keys can be allowed to embed and nothing else."""
    assert seen.check(*[AUTHENTICATION] * 5) is UNKNOWN
    assert "calls will tell" in seen.reason
    assert seen.call(None) is HEALTHY
    assert seen.check(*[AUTHENTICATION] * 5) is HEALTHY
    assert seen.call(AUTHENTICATION, AUTHENTICATION) is UNHEALTHY
    seen.now += LATER
    assert seen.check(AUTHENTICATION, AUTHENTICATION) is DEGRADED  # it is tried again every now and then
    other = Seen()
    other.check(None)
    assert other.check(AUTHENTICATION, AUTHENTICATION) is UNHEALTHY


def test_an_idle_endpoint_that_died_is_unhealthy_at_the_second_check_and_comes_back_by_checks_alone(
    seen: Seen,
) -> None:
    seen.check(None)
    assert seen.check(CONNECTION) is DEGRADED
    assert seen.check(CONNECTION) is UNHEALTHY
    seen.now += LATER
    assert seen.check(None) is UNHEALTHY
    assert seen.check(None) is DEGRADED
    seen.now += LATER
    assert seen.check(None) is HEALTHY


def test_while_its_circuit_is_open_it_is_unhealthy_and_half_open_it_is_degraded(seen: Seen) -> None:
    seen.call(*[None] * 20, *[SERVER] * 5)
    assert seen.stand(OPEN) is UNHEALTHY
    assert seen.call(*[None] * 5) is UNHEALTHY  # calls that were out
    seen.now += LATER
    assert seen.stand(HALF_OPEN) is DEGRADED
    seen.now += LATER
    assert seen.stand(CLOSED) is HEALTHY


def test_a_circuit_that_is_half_open_does_not_hide_that_checks_fail(seen: Seen) -> None:
    seen.check(None)
    seen.stand(OPEN)
    seen.check(CONNECTION, CONNECTION)
    seen.now += LATER
    assert seen.stand(HALF_OPEN) is UNHEALTHY


def test_calls_three_times_as_slow_as_calls_of_their_size_usually_are_degrade_it(seen: Seen) -> None:
    for _ in range(40):
        seen.call(None, seconds=0.1, tokens=100)
        seen.call(None, seconds=2.0, tokens=5000)  # twenty times as long, and as it should be
    assert seen.health is HEALTHY
    seen.call(*[None] * 30, seconds=0.5, tokens=100)
    assert seen.health is DEGRADED
    assert "times what they usually take" in seen.reason
    seen.now += LATER
    assert seen.call(*[None] * 50, seconds=0.1, tokens=100) is HEALTHY


def test_drift_of_one_space_degrades_it_and_of_all_makes_it_unhealthy(seen: Seen) -> None:
    seen.call(None)
    seen.drifted(1, 2, seen.now)
    assert seen.health is DEGRADED
    seen.drifted(2, 2, seen.now)
    assert seen.health is UNHEALTHY
    seen.now += LATER
    seen.drifted(0, 2, seen.now)
    assert seen.health is DEGRADED
    seen.now += LATER
    seen.settle(seen.now)
    assert seen.health is HEALTHY


FAULTS = st.none() | st.sampled_from(sorted(ProviderFault))


@given(st.lists(st.tuples(FAULTS, st.booleans(), st.floats(0, 1)), max_size=200))
def test_whatever_it_is_told_it_says_only_changes_and_flutters_at_most_every_ten_seconds(
    told: list[tuple[ProviderFault | None, bool, float]],
) -> None:
    seen = Seen()
    before, better = seen.health, []
    rank = {UNKNOWN: 0, HEALTHY: 0, DEGRADED: 1, UNHEALTHY: 2}
    changed_at = float("-inf")
    for fault, check, pause in told:
        seen.now += pause
        changed = seen.checked(fault, seen.now) if check else seen.called(fault, "m", 8, 0.1, seen.now)
        assert changed is (seen.health is not before)
        if rank[seen.health] < rank[before]:
            better.append(seen.now - changed_at)
        if changed:
            changed_at = seen.now
        before = seen.health
        assert len(seen._calls) <= WINDOW
        assert seen._ill == sum(f in {SERVER, AUTHENTICATION, CONNECTION, ProviderFault.TIMEOUT} for f in seen._calls)
    assert all(gap >= BETTER_SECONDS for gap in better)
