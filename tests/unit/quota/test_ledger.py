"""What a process holds of its quotas: asked for ahead, given back when idle, joined by what was there before."""

from __future__ import annotations

from typing import Any

import pytest

from domain import quota_ledger
from domain.quota_lease import IDLE_SECONDS, Answer, Ask, Lease
from domain.quota_ledger import Account, Amounts, Hold, Ledger, billed
from domain.quotas import Quota, QuotaKey
from tests.support.projecting import abandoned, failed, generated

TOKENS = QuotaKey("tenant", "", "tokens", "day")
MONTH = QuotaKey("tenant", "", "tokens", "month")
DAY = "2026-11-21"


class Office:
    """A ledger, its quotas, and a bank of one's own that grants what is asked for up to the limit."""

    def __init__(self) -> None:
        self.quotas: dict[QuotaKey, Quota] = {}
        self.woken = 0
        self.ledger = Ledger(lambda tenant, agent, model: list(self.quotas.items()), self._wake)
        self.granted: dict[tuple[QuotaKey, str], int] = {}

    def _wake(self) -> None:
        self.woken += 1

    def set(self, key: QuotaKey, limit: int, *, hard: bool = True, position: int = 1) -> None:
        self.quotas = {**self.quotas, key: Quota(limit, hard, position)}
        self.ledger.changed("t", self.quotas)

    def account(self, agent: str = "a", day: str = DAY) -> Account:
        return self.ledger.account("t", agent, "m", day)

    def take(self, tokens: int, now: float = 0.0, **where: str) -> Hold | None:
        return self.ledger.take(self.account(**where), (tokens, 1, 0), now)

    def lease(self, key: QuotaKey = TOKENS) -> Lease:
        [found] = [lease for lease in self.ledger.leases() if lease.key == key]
        return found

    def settle(self, waiting: list[tuple[Account, Amounts]] | None = None, now: float = 0.0, **how: Any) -> list[Ask]:
        """One call that goes well; what was asked."""
        asks = self.ledger.asks(now, waiting or [], **how)
        answers = []
        for ask in asks:
            given = min(ask.need + ask.extra, max(0, ask.lease.limit - ask.holds)) if ask.lease.hard else 0
            self.granted[ask.lease.key, ask.lease.period] = ask.holds + given
            answers.append(Answer(given, ask.lease.limit, ask.holds + given, ask.used))
        self.ledger.answered(asks, answers, now)
        return asks

    def obtain(self, tokens: int, now: float = 0.0) -> Hold:
        """Take, asking first."""
        self.settle([(self.account(), (tokens, 1, 0))], now)
        hold = self.take(tokens, now)
        assert hold is not None
        return hold


def test_without_quotas_every_request_passes_and_is_counted() -> None:
    office = Office()
    hold = office.take(10)
    assert hold is not None
    assert office.settle() == []
    hold.settle(generated("1", billed_tokens=7))
    assert (office.account().used, office.account().reserved) == ([7, 1, 100], [0, 0, 0])


def test_nothing_is_taken_before_it_was_granted() -> None:
    office = Office()
    office.set(TOKENS, 1000)
    assert office.take(1) is None
    office.settle([(office.account(), (1, 1, 0))])
    assert office.take(1) is not None


def test_a_request_takes_from_every_lease_or_from_none() -> None:
    office = Office()
    office.set(TOKENS, 1000)
    office.set(MONTH, 5)
    office.settle([(office.account(), (5, 1, 0))])
    assert office.take(6) is None
    assert (office.lease(TOKENS).reserved, office.lease(MONTH).reserved) == (0, 0)
    assert office.take(5) is not None
    assert (office.lease(TOKENS).reserved, office.lease(MONTH).reserved) == (5, 5)


def test_more_is_asked_for_before_a_lease_is_empty() -> None:
    office = Office()
    office.set(TOKENS, 10_000)
    office.obtain(10)
    given, before = office.lease().left, office.woken
    while office.lease().left >= given // 2:
        assert office.take(10) is not None
    assert office.woken > before
    [ask] = office.settle()
    assert (ask.need, ask.extra > 0) == (0, True)
    assert office.lease().left > given // 2


def test_what_a_request_did_not_use_is_free_again() -> None:
    office = Office()
    office.set(TOKENS, 1000)
    hold = office.obtain(100)
    left = office.lease().left
    hold.settle(generated("1", billed_tokens=30))
    assert (office.lease().used, office.lease().reserved, office.lease().left) == (30, 0, left + 70)
    hold.settle(generated("1", billed_tokens=30))
    hold.release()
    assert office.lease().used == 30, "an outcome is settled once"


def test_a_lease_that_is_idle_is_given_back() -> None:
    office = Office()
    office.set(TOKENS, 100_000)
    hold = office.obtain(100, now=1.0)
    hold.settle(generated("1", billed_tokens=30))
    assert office.settle(now=1.0 + IDLE_SECONDS / 2) == []
    [ask] = office.settle(now=1.0 + IDLE_SECONDS)
    assert (ask.holds, ask.used, ask.need, ask.extra) == (30, 30, 0, 0)
    assert office.take(1) is None
    assert office.settle(now=9.0) == [], "nothing more is to be said"


def test_where_the_window_is_nearly_used_up_what_is_idle_is_given_back_sooner() -> None:
    office = Office()
    office.set(TOKENS, 100)
    office.obtain(80, now=1.0).settle(generated("1", billed_tokens=30))
    [ask] = office.settle(now=1.0 + IDLE_SECONDS / 2)
    assert ask.holds == 30


def test_what_is_in_flight_is_kept_when_the_rest_is_given_back_at_the_end() -> None:
    office = Office()
    office.set(TOKENS, 1000)
    office.obtain(100)
    [ask] = office.settle(give_back=True)
    assert (ask.holds, office.granted[TOKENS, DAY]) == (100, 100)


def test_a_call_whose_fate_is_unknown_is_made_again() -> None:
    office = Office()
    office.set(TOKENS, 1000)
    asks = office.ledger.asks(0.0, [(office.account(), (10, 1, 0))])
    office.ledger.answered(asks, None, 0.0)
    assert office.take(10) is None
    assert [ask.holds for ask in office.ledger.asks(0.0)] == [0]


def test_a_limit_that_changes_while_a_call_is_under_way_is_told_by_the_next() -> None:
    office = Office()
    office.set(TOKENS, 1000)
    office.obtain(10)
    office.take(1)
    asks = office.ledger.asks(0.0, [(office.account(), (5000, 1, 0))])
    office.set(TOKENS, 50, position=2)
    office.ledger.answered(asks, [Answer(7, 1000, 1000, 0)], 0.0)
    [ask] = office.ledger.asks(0.0)
    assert (ask.position, ask.holds) == (2, 11), "what was given under the old limit is not kept"


def test_more_leases_than_one_call_takes_go_into_several(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(quota_ledger, "MAX_ASKS", 3)
    office = Office()
    for number in range(8):
        office.take(1, day=f"2026-11-{10 + number}")
    office.set(TOKENS, 1000)
    told = [len(office.settle(now=float(call))) for call in range(4)]
    assert told == [3, 3, 2, 0]
    assert {period for _, period in office.granted} == {f"2026-11-{10 + number}" for number in range(8)}


def test_a_quota_set_in_the_middle_of_a_window_counts_what_was_used_and_reserved_of_it_so_far() -> None:
    office = Office()
    done, going = office.take(40), office.take(60, agent="b")
    elsewhere = office.take(5, day="2026-11-20")
    assert done is not None
    assert going is not None
    assert elsewhere is not None
    done.settle(generated("1", billed_tokens=25))
    office.set(TOKENS, 1000)
    office.set(MONTH, 1000, position=2)
    asks = {(ask.lease.key, ask.lease.period): ask for ask in office.settle()}
    assert (asks[TOKENS, DAY].used, asks[TOKENS, DAY].holds) == (25, 85)
    assert (asks[MONTH, "2026-11"].used, asks[MONTH, "2026-11"].holds) == (25, 90)
    going.settle(generated("2", billed_tokens=60))
    assert office.lease(MONTH).used == 85


def test_a_lowered_limit_returns_what_is_left_and_a_raised_one_is_told() -> None:
    office = Office()
    office.set(TOKENS, 1000)
    office.obtain(10)
    office.set(TOKENS, 50, position=2)
    [ask] = office.settle()
    assert (ask.lease.limit, ask.lease.position, ask.holds) == (50, 2, 10)
    assert office.take(1) is None


def test_of_a_quota_that_was_removed_the_rest_is_returned_and_nothing_more_is_said() -> None:
    office = Office()
    office.set(TOKENS, 1000)
    hold = office.obtain(10)
    office.quotas = {}
    office.ledger.changed("t", {})
    assert [ask.holds for ask in office.settle()] == [10]
    assert office.take(10**9) is not None
    hold.settle(generated("1", billed_tokens=10))
    assert office.settle(now=9.0) == []
    office.set(TOKENS, 500, position=3)
    [ask] = office.settle()
    assert (ask.used, ask.holds) == (10, 10 + 10**9), "set again, it is joined with all that happened meanwhile"


def test_a_soft_quota_counts_and_refuses_nothing() -> None:
    office = Office()
    office.set(TOKENS, 10, hard=False)
    hold = office.take(1000)
    assert hold is not None
    assert office.woken == 0
    [ask] = office.settle()
    assert (ask.holds, ask.need, ask.extra) == (1000, 0, 0)
    hold.settle(generated("1", billed_tokens=900))
    [ask] = office.settle(now=5.0)
    assert (ask.used, ask.holds) == (900, 900)
    office.set(TOKENS, 2000, position=2)
    assert office.take(1) is None, "hard from now on, it is asked for"


def test_days_that_are_over_are_forgotten_and_the_month_remembers_them() -> None:
    office = Office()
    hold = office.take(10, day="2026-11-10")
    assert hold is not None
    office.ledger.prune("2026-11-21")
    hold.settle(generated("1", billed_tokens=8))
    assert office.account(day="2026-11-10").used[0] == 8, "one with something in flight is kept"
    office.ledger.prune("2026-11-21")
    assert office.account(day="2026-11-10").used[0] == 0
    office.set(MONTH, 1000)
    assert office.lease(MONTH).used == 8
    office.settle(give_back=True)
    office.ledger.prune("2027-01-21")
    assert list(office.ledger.leases()) == []


def test_names_of_agents_without_end_cost_no_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(quota_ledger, "MAX_AGENTS", 3)
    office = Office()
    for number in range(50):
        hold = office.take(1, agent=f"agent-{number}")
        assert hold is not None
        hold.settle(generated("1", billed_tokens=1))
    assert len({id(office.account(agent=f"agent-{number}")) for number in range(50)}) == 4
    office.set(MONTH, 1000)
    assert office.lease(MONTH).used == 50, "all of them count to the tenant's quotas"
    office.ledger.prune("2026-12-21")
    office.quotas = {QuotaKey("agent", "agent-49", "tokens", "day"): Quota(5, True, 2)}
    office.ledger.changed("t", office.quotas)
    assert office.account(agent="agent-49").agent == "agent-49", "one with a quota of its own is told apart"


@pytest.mark.parametrize(
    ("outcome", "amounts"),
    [
        (generated("1", billed_tokens=5), (5, 1, 100)),
        (generated("1", billed_tokens=0, nano_usd=0, cached_inputs=2), (0, 1, 0)),
        (generated("1", billed_tokens=5, nano_usd=None), (5, 1, 0)),
        (failed("1"), (0, 0, 0)),
        (failed("1", code="cancelled", billed_tokens=4, nano_usd=8), (4, 1, 8)),
        (failed("1", code="cancelled", characters=4, nano_usd=8), (0, 1, 8)),
        (abandoned("1"), (0, 0, 0)),
    ],
    ids=["answered", "cached", "unpriced", "failed", "billed all the same", "by characters", "abandoned"],
)
def test_an_outcome_uses_what_it_bills(outcome: Any, amounts: Amounts) -> None:
    assert billed(outcome) == amounts


def test_what_a_tenant_changes_takes_no_longer_for_what_others_hold() -> None:
    office = Office()
    office.set(TOKENS, 100)
    office.obtain(1)
    office.ledger.account("u", "a", "m", DAY)

    class NotLookedThrough(dict[Any, Any]):
        def items(self) -> Any:
            raise AssertionError("it looks through the leases of everybody")

    office.ledger._leases = NotLookedThrough(office.ledger._leases)
    office.ledger.changed("t", {TOKENS: Quota(50, True, 2)})
    assert [(lease.tenant, lease.limit) for lease in office.ledger.leases()] == [("t", 50), ("u", 100)]
    office.quotas = {}
    office.ledger.changed("t", {})
    assert [lease.tenant for lease in office.ledger.leases()] == ["u"]


def test_a_tenants_leases_are_forgotten_with_their_day_and_the_tenant_after_them() -> None:
    office = Office()
    office.set(TOKENS, 100)
    office.ledger.account("t", "a", "m", DAY)
    for _ in range(2):
        office.ledger.prune("2027-01-15")
    assert (list(office.ledger.leases()), office.ledger._homes) == ([], {})
