"""Which conditions hold, and which of them are news."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from domain.alerts import (
    CLOSED_SECONDS,
    QUOTA_KINDS,
    Alert,
    Change,
    Condition,
    alert_id,
    changes,
    close,
    decide_acknowledge,
    decide_silence,
    deprecation_conditions,
    levels,
    quota_conditions,
    quota_of,
)
from domain.errors import GatewayError
from domain.events import AlertRaised, AlertResolved
from domain.quotas import Quota, QuotaKey

KEY = QuotaKey("tenant", "", "tokens", "month")
NOVEMBER, DECEMBER = ({"day": f"2026-{m}-21", "month": f"2026-{m}"} for m in ("11", "12"))
WARNING, HIGH, EXCEEDED = QUOTA_KINDS


class Office:
    """The alerts of one tenant, folded from the changes that were found."""

    def __init__(self) -> None:
        self.alerts: dict[str, Alert] = {}
        self.events: list[Change] = []
        self.now = 1000.0

    def look(self, used: int, limit: int | None, periods: dict[str, str] = NOVEMBER) -> list[str]:
        """What is news, in words: the kind for raised, the kind and reason for resolved."""
        quotas = {} if limit is None else {KEY: Quota(limit, True, 1)}
        self.now += 1
        found = changes(
            quota_conditions("acme", quotas, {KEY: used}, periods), list(self.alerts.values()), self.now,
            quotas=quotas, periods=periods,
        )  # fmt: skip
        return [self.fold(change) for change in found]

    def fold(self, change: Change) -> str:
        self.events.append(change)
        data = change.data
        if isinstance(data, AlertRaised):
            self.alerts[data.alert] = Alert(
                data.alert, change.tenant, data.kind, data.severity, data.summary, data.labels, data.episode, self.now,
                data.used, data.limit,
            )  # fmt: skip
            return data.kind
        alert = self.alerts[data.alert]
        assert alert.episode == data.episode
        self.alerts[data.alert] = replaced(alert, resolved_at=self.now, reason=data.reason)
        return f"{alert.kind} {data.reason}"


def replaced(alert: Alert, **fields: object) -> Alert:

    return msgspec.structs.replace(alert, **fields)


@pytest.mark.parametrize(
    ("used", "limit", "reached"),
    [
        (0, 100, ()),
        (80, 100, ()),
        (81, 100, (WARNING,)),
        (90, 100, (WARNING,)),
        (91, 100, (WARNING, HIGH)),
        (99, 100, (WARNING, HIGH)),
        (100, 100, QUOTA_KINDS),
        (101, 100, QUOTA_KINDS),
        (0, 0, ()),
        (1, 0, QUOTA_KINDS),
        (1, 1, QUOTA_KINDS),
        (8 * 10**17, 10**18, ()),
        (8 * 10**17 + 1, 10**18, (WARNING,)),
        (9 * 10**17 + 1, 10**18, (WARNING, HIGH)),
    ],
)
def test_the_levels_are_over_80_over_90_and_all_of_it(used: int, limit: int, reached: tuple[str, ...]) -> None:
    assert levels(used, limit) == reached


def test_each_level_is_raised_once_a_window_and_all_are_cleared_by_the_next() -> None:
    office = Office()
    assert [office.look(used, 100) for used in (80, 81, 85, 91, 95, 100, 100)] == [
        [], [WARNING], [], [HIGH], [], [EXCEEDED], [],
    ]  # fmt: skip
    assert office.look(0, 100, DECEMBER) == [f"{kind} reset" for kind in QUOTA_KINDS]
    assert office.look(85, 100, DECEMBER) == [WARNING]
    assert [c.data.episode for c in office.events] == [1] * 7, "another window is another alert"


def test_a_level_that_is_jumped_over_is_not_told_for_itself() -> None:
    office = Office()
    assert office.look(100, 100) == [EXCEEDED]
    assert office.look(150, 100) == []


def test_a_raised_limit_clears_what_is_no_longer_reached_and_a_lowered_one_raises_it_again() -> None:
    office = Office()
    for used in (81, 91, 100):
        office.look(used, 100)
    assert office.look(100, 120) == [f"{HIGH} raised", f"{EXCEEDED} raised"]
    assert office.look(100, 1000) == [f"{WARNING} raised"]
    assert office.look(100, 100) == [EXCEEDED]
    assert office.events[-1].data.episode == 2
    assert office.look(100, None) == [f"{EXCEEDED} removed"]


def test_what_a_person_closed_stays_closed_until_the_limit_changes_or_the_window_is_over() -> None:
    office = Office()
    office.look(100, 100)
    [alert] = office.alerts.values()
    office.alerts[alert.alert] = replaced(alert, resolved_at=office.now, reason="closed", resolved_by="key:x")
    assert office.look(110, 100) == []
    assert office.look(110, 105) == [EXCEEDED]


def test_what_a_person_closed_though_it_goes_on_comes_back_after_an_hour() -> None:
    condition = Condition("failover", "acme", {"model": "m"}, "why")
    closed = Alert(
        condition.alert, "acme", "failover", "warning", "why", {"model": "m"}, 1, 0.0, resolved_at=1000.0, reason="closed"
    )  # fmt: skip
    assert changes([condition], [closed], 1000.0 + CLOSED_SECONDS) == []
    [again] = changes([condition], [closed], 1001.0 + CLOSED_SECONDS)
    assert again.data.episode == 2


def test_an_alert_is_named_after_its_kind_tenant_and_labels_alone() -> None:
    assert alert_id("a", "t", {"x": "1", "y": "2"}) == alert_id("a", "t", {"y": "2", "x": "1"})
    others = {
        alert_id("a", "t", {"x": "1"}),
        alert_id("b", "t", {"x": "1"}),
        alert_id("a", "u", {"x": "1"}),
        alert_id("a", "t", {}),
    }
    assert len(others) == 4


def test_whoever_finds_it_makes_the_same_event_and_another_episode_another() -> None:
    def event(now: float, episode: int = 1) -> tuple[bytes, bytes]:
        data = AlertResolved(alert="x", reason="reset", at=int(now), episode=episode)
        made = Change("acme", data).event
        return made.key, made.event_id

    assert event(1.0) == event(2.0)
    assert not {*event(1.0)} & {*event(1.0, 2)}, "neither its key nor its id"


def test_labels_say_which_quota_it_is() -> None:
    key = QuotaKey("model", "m", "nano_usd", "day")
    [condition] = quota_conditions("acme", {key: Quota(10, True, 1)}, {key: 9}, NOVEMBER)
    assert quota_of(condition.labels) == key
    assert condition.labels["period"] == "2026-11-21"
    assert "90 % of the budget (nano-dollars) of the model m for 2026-11-21 is used: 9 of 10" in condition.summary


def test_a_deprecated_model_is_told_with_the_day_it_goes() -> None:
    one, other = deprecation_conditions("acme", {"m": "2027-01-01", "n": None})
    assert "removed on 2027-01-01" in one.summary
    assert "removed" not in other.summary


def alert(**fields: object) -> Alert:
    return replaced(Alert("a", "acme", "failover", "warning", "s", {}, 1, 0.0), **fields)


def test_an_acknowledged_or_silenced_alert_is_not_delivered_and_a_silence_ends_by_itself() -> None:
    assert alert().delivered(0)
    assert not alert(acknowledged_at=1.0).delivered(2)
    silenced = alert(silenced_until=10.0)
    assert (silenced.state(9), silenced.delivered(9)) == ("silenced", False)
    assert (silenced.state(10), silenced.delivered(10)) == ("raised", True)
    assert alert(resolved_at=1.0, acknowledged_at=0.5).delivered(2), "that it is over is told to whoever saw it"
    assert not alert(resolved_at=1.0, silenced_until=10.0).delivered(2)


def test_decisions_change_nothing_twice_and_refuse_what_is_over() -> None:
    [seen] = decide_acknowledge(alert(), "key:x")
    assert (seen.tenant, seen.stream, seen.data.TYPE) == ("acme", "tenant/acme", "alert.acknowledged")
    assert decide_acknowledge(alert(acknowledged_at=1.0), "key:x") == []
    [silenced] = decide_silence(alert(), 20, 10.0, "key:x")
    assert silenced.data.TYPE == "alert.silenced"
    assert decide_silence(alert(silenced_until=20.0), 20, 10.0, "key:x") == []
    assert decide_silence(alert(), 5, 10.0, "key:x") == [], "it is not silenced"
    assert decide_silence(alert(silenced_until=20.0), 5, 10.0, "key:x")
    with pytest.raises(GatewayError, match="a year at most"):
        decide_silence(alert(), 400 * 86400, 10.0, "key:x")
    for decide in (lambda a: decide_acknowledge(a, "x"), lambda a: decide_silence(a, 20, 10.0, "x")):
        with pytest.raises(GatewayError, match="is resolved"):
            decide(alert(resolved_at=1.0))
    assert close(alert(resolved_at=1.0), 2.0, "x") is None
    assert close(alert(tenant="_system"), 2.0, "x").stream == "system"


class QuotaAlerts(RuleBasedStateMachine):
    """However use, limits and windows change: what is open is what holds, and each episode is told once."""

    def __init__(self) -> None:
        super().__init__()
        self.office = Office()
        self.used, self.limit, self.month = 0, 100, 1

    @rule(more=st.integers(0, 60))
    def use(self, more: int) -> None:
        self.used += more

    @rule(limit=st.none() | st.integers(0, 300))
    def set(self, limit: int | None) -> None:
        self.limit = limit

    @rule()
    def turn(self) -> None:
        self.month, self.used = self.month + 1, 0

    @invariant()
    def what_is_open_is_what_holds(self) -> None:
        periods = {"day": "2026-01-01", "month": f"m{self.month}"}
        self.office.look(self.used, self.limit, periods)
        assert self.office.look(self.used, self.limit, periods) == [], "the second look finds nothing new"
        reached = () if self.limit is None else levels(self.used, self.limit)
        still = {a.kind for a in self.office.alerts.values() if a.open}
        assert still <= set(reached)
        assert not reached or reached[-1] in still, "the gravest level is told"
        assert all(a.labels["period"] == f"m{self.month}" for a in self.office.alerts.values() if a.open)
        told = [(c.data.TYPE, c.data.alert, c.data.episode) for c in self.office.events]
        assert len(told) == len(set(told))


TestQuotaAlerts = QuotaAlerts.TestCase
TestQuotaAlerts.settings = settings(max_examples=60, stateful_step_count=20, deadline=None)


@given(used=st.integers(0, 10**18), limit=st.integers(0, 10**18), more=st.integers(0, 10**6))
def test_using_more_never_leaves_a_level(used: int, limit: int, more: int) -> None:
    assert set(levels(used, limit)) <= set(levels(used + more, limit))
