"""What a process makes of limits that change while requests are in flight: what was promised before is finished, nothing more is let in."""

from __future__ import annotations

import pytest

from domain import quota_ledger
from domain.quota_lease import Answer
from domain.quotas import Quota, QuotaKey
from tests.support.projecting import generated
from tests.unit.quota.test_ledger import DAY, MONTH, TOKENS, Office


def test_what_a_request_leaves_that_was_let_in_before_the_limit_was_lowered_lets_no_other_in() -> None:
    office = Office()
    office.set(TOKENS, 1000)
    hold = office.obtain(800)
    office.set(TOKENS, 100, position=2)
    hold.settle(generated("1", billed_tokens=10))
    assert office.take(700) is None, "before the database was told"
    for now in (1.0, 2.0):
        office.settle([(office.account(), (700, 1, 0))], now)
        assert office.take(700, now) is None
    assert office.take(90, 2.0) is not None, "what the new limit leaves is had to the last token"


def test_what_is_left_after_the_database_was_told_pays_first_for_what_is_over_the_limit() -> None:
    office = Office()
    office.set(TOKENS, 1000)
    hold = office.obtain(800)
    office.set(TOKENS, 100, position=2)
    office.settle()
    hold.settle(generated("1", billed_tokens=10))
    assert office.take(91) is None
    assert office.take(90) is not None, "790 were freed, and 700 of them were more than the limit"


def test_what_a_request_leaves_that_was_there_before_the_first_quota_lets_no_other_in() -> None:
    office = Office()
    done, going = office.take(500), office.take(300)
    assert done is not None
    assert going is not None
    done.settle(generated("1", billed_tokens=500))
    office.set(TOKENS, 100)
    office.settle()
    going.settle(generated("2", billed_tokens=10))
    assert office.take(1) is None
    office.settle([(office.account(), (1, 1, 0))], 1.0)
    assert office.take(1, 1.0) is None
    assert office.granted[TOKENS, DAY] == 510


def test_while_what_others_used_before_a_quota_is_counted_nothing_is_let_in() -> None:
    office = Office()
    going = office.take(300)
    assert going is not None
    office.set(TOKENS, 1000)
    asks = office.ledger.asks(0.0)
    office.ledger.answered(asks, [Answer(0, 1000, 300, 0, behind=True)], 0.0)
    going.settle(generated("1", billed_tokens=10))
    assert office.take(1) is None


def test_a_soft_quota_that_turns_hard_lets_nothing_in_for_what_requests_in_flight_leave() -> None:
    office = Office()
    office.set(TOKENS, 100, hard=False)
    done, going = office.take(500), office.take(100)
    assert done is not None
    assert going is not None
    done.settle(generated("1", billed_tokens=500))
    office.settle()
    office.set(TOKENS, 550, position=2)
    going.settle(generated("2", billed_tokens=10))
    assert office.take(41) is None
    office.settle([(office.account(), (41, 1, 0))], 1.0)
    assert office.take(41, 1.0) is None
    assert office.take(40, 1.0) is not None


def test_a_request_that_needs_nothing_of_a_quota_passes_however_far_it_is_over_its_limit() -> None:
    office = Office()
    assert office.take(500) is not None
    office.set(TOKENS, 100)
    assert office.take(0) is not None, "nor is the database asked"
    office.settle()
    assert office.take(0) is not None
    assert office.ledger.lacking(office.account(), (0, 1, 0)) is None


def test_being_over_the_limit_is_told_once_and_then_no_more() -> None:
    office = Office()
    office.set(TOKENS, 1000)
    office.obtain(10).settle(generated("1", billed_tokens=10))
    asks = office.ledger.asks(0.1, [(office.account(), (500, 1, 0))])
    office.ledger.answered(asks, [Answer(5, 1000, 2000, 900)], 0.1)
    assert office.take(1) is None, "another process brought what it had used before: all that is left is given up"
    [ask] = office.ledger.asks(0.2)
    assert ask.holds == 10
    office.ledger.answered([ask], [Answer(0, 1000, 1900, 950)], 0.2)
    assert office.ledger.asks(0.3) == []


def test_of_a_quota_that_is_removed_and_set_again_before_the_database_was_told_only_what_is_in_force_is_told() -> None:
    office = Office()
    office.set(TOKENS, 1000)
    hold = office.obtain(10)
    office.quotas = {}
    office.ledger.changed("t", {})
    office.set(TOKENS, 500, position=2)
    asks = office.ledger.asks(0.0, [(office.account(), (5, 1, 0))])
    assert [(ask.position, ask.holds) for ask in asks] == [(2, 10)], (
        "the old lease would undo what the new one is granted"
    )
    hold.release()


def test_an_agent_that_was_not_told_apart_is_joined_with_all_that_were_not(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(quota_ledger, "MAX_AGENTS", 2)
    office = Office()
    for number in range(4):
        hold = office.take(10, agent=f"agent-{number}", day="2026-11-10")
        assert hold is not None
        hold.settle(generated("1", billed_tokens=10))
    key = QuotaKey("agent", "agent-3", "tokens", "month")
    office.quotas = {key: Quota(1000, True, 1)}
    office.ledger.changed("t", office.quotas)
    office.account(agent="agent-3")
    assert office.lease(key).used == 20, "more than its own, never less"
    office.ledger.prune("2026-11-21")
    office.quotas = {}
    office.ledger.changed("t", office.quotas)
    office.quotas = {key: Quota(1000, True, 2), MONTH: Quota(1000, True, 2)}
    office.ledger.changed("t", office.quotas)
    office.account(agent="agent-3")
    assert (office.lease(key).used, office.lease(MONTH).used) == (20, 40)
