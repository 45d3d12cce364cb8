"""Any interleaving of calls, ends, time and words from elsewhere, against a plain model of a circuit."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import msgspec
import pytest
from hypothesis import Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    MultipleResults,
    RuleBasedStateMachine,
    consumes,
    invariant,
    multiple,
    rule,
    run_state_machine_as_test,
)

from adapters.breaker import AioBreaker, AioPermit, CircuitPolicy, Transition
from domain.ports.provider import ProviderError, ProviderFault

POLICY = CircuitPolicy(failures=3, open_seconds=10.0, trial_calls=2, successes=2)


@dataclass(eq=False)
class Out:
    """A call that was admitted: the model's side of it, ours, and how it will end."""

    period: int
    trial: bool
    permit: AioPermit
    task: asyncio.Task[str] | None = None
    end: asyncio.Future[str] | None = None


@dataclass
class Model:
    """A circuit in so many words, with a list of what it has said."""

    state: str = "closed"
    until: float = 0.0
    failures: int = 0
    trials: int = 0
    successes: int = 0
    period: int = 0
    said: list[tuple[str, str, int]] = field(default_factory=list)

    def move(self, state: str, now: float, *, says: bool = True) -> None:
        previous, self.state = self.state, state
        self.period += 1
        self.successes = 0
        if state == "open":
            self.until = now + POLICY.open_seconds
        if state == "closed":
            self.failures = 0
        if says:
            self.said.append((previous, state, self.failures))

    def admits(self, now: float) -> bool:
        if self.state == "closed":
            return True
        return (self.state == "half_open" or now >= self.until) and self.trials < POLICY.trial_calls

    def ended(self, out: Out, outcome: str, now: float) -> None:
        if out.trial:
            self.trials -= 1
        if out.period != self.period or outcome == "neutral":
            return
        if outcome == "failure":
            self.failures += 1
            if out.trial or self.failures >= POLICY.failures:
                self.move("open", now)
        elif out.trial:
            self.successes += 1
            if self.successes >= POLICY.successes:
                self.move("closed", now)
        else:
            self.failures = 0


class Circuits(RuleBasedStateMachine):
    """See the module."""

    calls: Bundle[Out] = Bundle("calls")

    def __init__(self) -> None:
        super().__init__()
        self.loop = asyncio.new_event_loop()
        self.now = 100.0
        self.said: list[Transition] = []
        self.breaker = AioBreaker(POLICY, clock=lambda: self.now, on_change=self.said.append)
        self.model = Model()

    def teardown(self) -> None:
        for task in asyncio.all_tasks(self.loop):
            task.cancel()
        self.settle()
        self.loop.close()

    def settle(self) -> None:
        for _ in range(4):
            self.loop.run_until_complete(asyncio.sleep(0))

    @rule(target=calls, send=st.booleans())
    def call(self, send: bool) -> Out | MultipleResults[Out]:
        admitted, permit = self.model.admits(self.now), self.breaker.admit()
        assert (permit is not None) is admitted
        if permit is None:
            return multiple()
        trial = self.model.state != "closed"
        if self.model.state == "open":
            self.model.move("half_open", self.now)
        self.model.trials += trial
        out = Out(self.model.period, trial, permit)
        if send:
            self.send(out)
        return out

    def send(self, out: Out) -> None:
        out.end = end = self.loop.create_future()
        out.task = self.loop.create_task(out.permit.run(lambda: end))
        self.settle()

    @rule(
        out=consumes(calls),
        outcome=st.sampled_from(["success", "failure", "failure", "neutral", "cancelled", "given back"]),
    )
    def end(self, out: Out, outcome: str) -> None:
        if outcome == "given back" and out.task is None:
            out.permit.give_back()
            self.model.ended(out, "neutral", self.now)
            return
        if out.task is None:
            self.send(out)
        assert out.task is not None
        assert out.end is not None
        if outcome in ("cancelled", "given back"):
            out.task.cancel()
            self.settle()
            assert out.task.cancelled()
            outcome = "neutral"
        elif outcome == "success":
            out.end.set_result("vectors")
            self.settle()
            assert out.task.result() == "vectors"
        else:
            error = ProviderError(
                ProviderFault.SERVER if outcome == "failure" else ProviderFault.RATE_LIMITED, "as it is"
            )
            out.end.set_exception(error)
            self.settle()
            assert out.task.exception() is error
        self.model.ended(out, outcome, self.now)

    @rule(seconds=st.sampled_from([0.5, 5.0, 10.0]))
    def wait(self, seconds: float) -> None:
        self.now += seconds

    @rule(seconds=st.sampled_from([0.0, 5.0, 20.0]))
    def told_to_open(self, seconds: float) -> None:
        self.breaker.force_open(seconds)
        if self.model.state != "open":
            self.model.move("open", self.now, says=False)
        self.model.until = self.now + seconds

    @rule()
    def told_to_close(self) -> None:
        self.breaker.force_close()
        self.model.move("closed", self.now, says=False)

    @invariant()
    def agree(self) -> None:
        model, breaker = self.model, self.breaker
        state = "half_open" if model.state == "open" and self.now >= model.until else model.state
        assert breaker.state == state
        assert breaker.failures == model.failures
        assert breaker.would_admit() is model.admits(self.now)
        assert breaker.open_for == (max(0.0, model.until - self.now) if model.state == "open" else 0.0)
        assert [(t.previous, t.state, t.failures) for t in self.said] == model.said


SETTINGS = settings(max_examples=120, stateful_step_count=40, deadline=None)
SEARCH = settings(
    SETTINGS,
    max_examples=2000,
    phases=[Phase.generate],
    report_multiple_bugs=False,
    database=None,
    derandomize=True,
)
"""Until the first failure, which nobody needs in its smallest form."""


def test_whatever_happens_it_is_what_the_model_says() -> None:
    run_state_machine_as_test(Circuits, settings=SETTINGS)


def _counts_rate_limits(patch: pytest.MonkeyPatch) -> None:
    patch.setattr("adapters.breaker.COUNTED", frozenset(ProviderFault))


def _keeps_slots(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(AioBreaker, "ended", lambda self: None)


def _counts_late_calls(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(AioPermit, "period", property(lambda self: self._breaker._period, lambda self, _: None))


def _closes_on_the_first_success(patch: pytest.MonkeyPatch) -> None:
    made = AioBreaker.__init__

    def init(self: AioBreaker, policy: CircuitPolicy, **more: Any) -> None:
        made(self, msgspec.structs.replace(policy, successes=1), **more)

    patch.setattr(AioBreaker, "__init__", init)


@pytest.mark.parametrize(
    "defect", [_counts_rate_limits, _keeps_slots, _counts_late_calls, _closes_on_the_first_success]
)
def test_a_defect_would_be_found(monkeypatch: pytest.MonkeyPatch, defect: Callable[[pytest.MonkeyPatch], None]) -> None:
    defect(monkeypatch)
    with pytest.raises(AssertionError):
        run_state_machine_as_test(Circuits, settings=SEARCH)
