"""Many processes, one quota: whatever is lost, late, paused or killed, the log never has more than the limit, and every ledger is what the
plain fold of its requests says.
"""

from __future__ import annotations

import contextlib
from dataclasses import dataclass, field

import hypothesis.strategies as st
import pytest
from hypothesis import settings
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from domain.ports.event_log import InstanceFenced
from domain.quota_lease import Ask
from domain.quota_ledger import Account, Amounts, Hold, Ledger
from domain.quotas import Quota, QuotaKey
from tests.support.quotas import Bank

TOKENS = QuotaKey("tenant", "", "tokens", "day")
DAY = "2026-11-21"
AGENTS = ("a", "b")


@dataclass
class Process:
    """A gateway: its ledger, the requests it has let in, and the call under way, if there is one."""

    ledger: Ledger
    quota: Quota
    serial: int = 0
    holds: list[tuple[Hold, Amounts]] = field(default_factory=list)
    used: int = 0
    call: tuple[int, list[Ask]] | None = None

    @property
    def reserved(self) -> int:
        return sum(need[0] for _, need in self.holds)


class Gateways(RuleBasedStateMachine):
    """`now` moves by steps; processes are numbered, and one that was fenced goes on under a new number with an empty ledger."""

    reserving = True

    @initialize(limit=st.integers(0, 500))
    def begin(self, limit: int) -> None:
        self.now = 0.0
        self.quotas = [Quota(limit, True, 1)]
        self.bank = Bank(limit)
        self.bank.limits[1] = limit
        self.processes: dict[int, Process] = {}
        self.late: list[tuple[int, int, list[Ask]]] = []
        self.born = 0
        for _ in range(3):
            self.start()

    def start(self) -> None:
        self.born += 1
        made = Process(Ledger(lambda tenant, agent, model: [(TOKENS, made.quota)]), self.quotas[-1])
        self.processes[self.born] = made

    def process(self, number: int) -> Process:
        return list(self.processes.values())[number % len(self.processes)]

    def account(self, process: Process, agent: int) -> Account:
        return process.ledger.account("t", AGENTS[agent % 2], "m", DAY)

    @rule(number=st.integers(0, 9), agent=st.integers(0, 1), tokens=st.integers(1, 60))
    def ask_for(self, number: int, agent: int, tokens: int) -> None:
        process, need = self.process(number), (tokens, 1, 0)
        account = self.account(process, agent)
        hold = process.ledger.take(account, need, self.now)
        if hold is not None and process.quota is self.quotas[-1] and not self.held_for_dead(process):
            assert self.spent + tokens <= process.quota.limit, "let in above a limit that it has heard of"
        if hold is None and not self.reserving:  # the negative control: let in what the limit seems to leave
            hold = Hold(process.ledger, account, need) if self.bank.granted + tokens <= self.bank.limit else None
        if hold is not None:
            process.holds.append((hold, need))
        elif process.call is None:
            self.send(process, [(account, need)])

    def send(self, process: Process, waiting: list[tuple[Account, Amounts]]) -> None:
        process.serial += 1
        process.call = (process.serial, process.ledger.asks(self.now, waiting))

    @rule(number=st.integers(0, 9), share=st.integers(0, 100))
    def end(self, number: int, share: int) -> None:
        process = self.process(number)
        if process.holds:
            hold, need = process.holds.pop(0)
            used = need[0] * share // 100
            me = next(n for n, p in self.processes.items() if p is process)
            if me in self.bank.closed:
                return  # its append is refused
            self.bank.log[me] += used
            process.used += used
            process.ledger.settle(hold.account, need, (used, 1, 0))

    def held_for_dead(self, process: Process) -> bool:
        return any(p is process for n, p in self.processes.items() if n in self.bank.closed)

    @property
    def spent(self) -> int:
        """What is used, or may still be by what was let in."""
        living = (p.used + p.reserved for n, p in self.processes.items() if n not in self.bank.closed)
        dead = sum(self.bank.log[n] for n in self.bank.log if n in self.bank.closed or n not in self.processes)
        return sum(living) + dead

    @rule(number=st.integers(0, 9))
    def tick(self, number: int) -> None:
        process = self.process(number)
        if process.call is None:
            self.send(process, [])

    @rule(
        number=st.integers(0, 9), fate=st.sampled_from(["answered", "answered", "answered", "lost", "not sent", "late"])
    )
    def call_ends(self, number: int, fate: str) -> None:
        process = self.process(number)
        if process.call is None:
            return
        (serial, asks), process.call = process.call, None
        me = next(n for n, p in self.processes.items() if p is process)
        answers = None
        if fate in ("answered", "lost"):
            try:
                answers = self.bank.lease(me, serial, asks)
            except InstanceFenced:
                answers = None
            if fate == "lost":
                answers = None
        elif fate == "late":
            self.late.append((me, serial, asks))
        process.ledger.answered(asks, answers, self.now)

    @precondition(lambda self: self.late)
    @rule()
    def a_late_call_arrives(self) -> None:
        me, serial, asks = self.late.pop()
        with contextlib.suppress(InstanceFenced, ValueError):
            self.bank.lease(me, serial, asks)

    @rule(seconds=st.sampled_from([0.05, 0.3, 1.5]))
    def time_passes(self, seconds: float) -> None:
        self.now += seconds

    @rule(number=st.integers(0, 9), comes_back=st.booleans())
    def dies_or_is_held_for_dead(self, number: int, comes_back: bool) -> None:
        process = self.process(number)
        me = next(n for n, p in self.processes.items() if p is process)
        self.bank.close(me)
        if not comes_back:
            del self.processes[me]
            self.start()

    @precondition(lambda self: any(n in self.bank.closed for n in self.processes))
    @rule()
    def starts_anew(self) -> None:
        me = next(n for n in self.processes if n in self.bank.closed)
        del self.processes[me]
        self.start()

    @invariant()
    def the_log_has_no_more_than_the_limit(self) -> None:
        assert sum(self.bank.log.values()) <= self.bank.limit, "overspent"

    @invariant()
    def no_more_is_granted_than_the_limit(self) -> None:
        assert self.bank.granted <= self.bank.limit

    @invariant()
    def every_process_holds_at_most_what_it_was_granted(self) -> None:
        for number, process in self.processes.items():
            if number not in self.bank.closed:
                for lease in process.ledger.leases():
                    assert lease.holds <= self.bank.leases.get(number, 0)

    @invariant()
    def every_ledger_is_the_plain_fold_of_its_requests(self) -> None:
        for number, process in self.processes.items():
            for lease in process.ledger.leases():
                if number not in self.bank.closed:
                    assert (lease.used, lease.reserved) == (process.used, process.reserved)


class Changing(Gateways):
    """The limit becomes more or less than what is used and reserved, and each process hears of it in its own time. What was let in before
    is finished.
    """

    def the_log_has_no_more_than_the_limit(self) -> None:
        """Not of a limit that was lowered: `ask_for` says of each request whether it was let in above a limit that was known."""

    def no_more_is_granted_than_the_limit(self) -> None:
        """Nor this."""

    @rule(number=st.integers(0, 2), tokens=st.integers(1, 60), share=st.none() | st.integers(0, 100))
    def let_in(self, number: int, tokens: int, share: int | None) -> None:
        """In one step, so that something is in flight more often than not; and ended, with a share."""
        if share is not None:
            self.end(number, share)
        self.call_ends(number, "answered")
        self.ask_for(number, 0, tokens)
        self.call_ends(number, "answered")
        self.ask_for(number, 0, tokens)

    @rule(number=st.integers(0, 9), percent=st.integers(0, 150))
    def another_limit(self, number: int, percent: int) -> None:
        limit = self.spent * percent // 100
        self.quotas.append(Quota(limit, True, len(self.quotas) + 1))
        self.bank.limits[len(self.quotas)] = limit
        self.hear(number)

    @rule(number=st.integers(0, 9))
    def hear(self, number: int) -> None:
        process = self.process(number)
        process.quota = self.quotas[-1]
        process.ledger.changed("t", {TOKENS: process.quota})


QUICK = settings(max_examples=80, stateful_step_count=50, deadline=None)


def test_many_processes_never_use_more_than_the_limit() -> None:
    run_state_machine_as_test(Gateways, settings=QUICK)


def test_no_process_lets_anything_in_above_a_limit_that_it_has_heard_of() -> None:
    run_state_machine_as_test(Changing, settings=QUICK)


class Unreserving(Gateways):
    """Processes that look at what is granted and let a request in without taking anything."""

    reserving = False


@pytest.mark.parametrize("kind", [Gateways, Unreserving])
def test_processes_that_check_without_reserving_overspend(kind: type[Gateways]) -> None:
    gateways = kind()
    gateways.begin(100)
    for number in range(3):
        gateways.ask_for(number, 0, 60)
        gateways.call_ends(number, "answered")
        gateways.ask_for(number, 0, 60)
    for number in range(3):
        gateways.end(number, 100)
    if kind is Unreserving:
        with pytest.raises(AssertionError, match="overspent"):
            gateways.the_log_has_no_more_than_the_limit()
    else:
        gateways.the_log_has_no_more_than_the_limit()
        assert sum(gateways.bank.log.values()) == 60
