"""Gateways that call, hear of each other late, start and are reset in any order: what is adopted is never said again, and nothing stays open."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress

import pytest
from hypothesis import Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule, run_state_machine_as_test

from adapters.breaker import CircuitPolicy
from domain.catalogue import Endpoint
from domain.decoding import decode_data
from domain.endpoint_decisions import decide_reset_breaker
from domain.events import BreakerChanged
from domain.plane import ControlPlane
from domain.ports.breaker import CircuitState
from domain.ports.event_log import NewEvent
from domain.ports.provider import ProviderError, ProviderFault
from gateway.decisions import decision_event
from gateway.endpoints.breakers import Breakers

MAIN = Endpoint("main", "openai", {"small": ""})
POLICY = CircuitPolicy(failures=2, open_seconds=10.0, trial_calls=2, successes=1)
WHO = st.integers(0, 3)


class Gateway:
    """One of them, with its own fold of the log, as far as it has read."""

    def __init__(self, installation: Installation, name: str) -> None:
        self.plane = ControlPlane()
        self.read = 0
        self.log = installation.log
        while self.read < len(self.log):
            self.fold()
        self.breakers = Breakers(
            self.plane.endpoints.breakers,
            POLICY,
            lambda _, event: self.log.append(event),
            instance=lambda: name,
            clock=lambda: installation.now - 77,
            wall=lambda: installation.now,
        )
        self.breakers.of(MAIN)

    def fold(self) -> None:
        event = self.log[self.read]
        self.read += 1
        data = decode_data(event.type, event.data, event.schema_version)
        assert isinstance(data, BreakerChanged)
        if hasattr(self, "breakers"):
            self.breakers.observe(data)
        self.plane.apply(self.read, event.tenant, event.stream, self.read, data)


class Installation(RuleBasedStateMachine):
    """See the module."""

    def __init__(self) -> None:
        super().__init__()
        self.loop = asyncio.new_event_loop()
        self.now = 1_000.0
        self.log: list[NewEvent] = []
        self.calls = self.resets = 0
        self.gateways = [Gateway(self, "g0"), Gateway(self, "g1")]

    def teardown(self) -> None:
        self.loop.close()

    def one(self, who: int) -> Gateway:
        return self.gateways[who % len(self.gateways)]

    @rule(who=WHO, fails=st.booleans())
    def call(self, who: int, fails: bool) -> None:
        async def work() -> None:
            if fails:
                raise ProviderError(ProviderFault.SERVER, "no")

        permit = self.one(who).breakers.of(MAIN).admit()
        if permit is not None:
            self.calls += 1
            with suppress(ProviderError):
                self.loop.run_until_complete(permit.run(work))

    @rule(who=WHO)
    def hear(self, who: int) -> None:
        gateway, said = self.one(who), len(self.log)
        if gateway.read < said:
            gateway.fold()
        assert len(self.log) == said, "what was adopted is said again"

    @rule(seconds=st.sampled_from([1.0, 9.0, 10.0]))
    def wait(self, seconds: float) -> None:
        self.now += seconds

    @precondition(lambda self: len(self.gateways) < 4)
    @rule()
    def start(self) -> None:
        self.gateways.append(Gateway(self, f"g{len(self.gateways)}"))

    @rule()
    def reset(self) -> None:
        """An operator's, by a gateway that has read everything; then everybody hears of it."""
        self.all_hear()
        gateway = self.gateways[0]
        state = gateway.breakers.of(MAIN).state
        for decision in decide_reset_breaker(gateway.plane, MAIN, "key:op", now=self.now, state=state):
            self.resets += 1
            data = decision.data
            assert isinstance(data, BreakerChanged)
            self.log.append(decision_event(decision.tenant, decision.stream, data))
            self.all_hear()
            assert {g.breakers.of(MAIN).state for g in self.gateways} == {CircuitState.CLOSED}

    @rule()
    def rest(self) -> None:
        """Whatever was said, once everybody has heard it and its time has passed, trial calls may go out everywhere."""
        self.all_hear()
        self.now += POLICY.open_seconds
        assert all(g.breakers.of(MAIN).would_admit() for g in self.gateways)

    def all_hear(self) -> None:
        for who in range(len(self.gateways)):
            while self.gateways[who].read < len(self.log):
                self.hear(who)

    @invariant()
    def bounded(self) -> None:
        assert all(0 <= g.breakers.of(MAIN).open_for <= POLICY.open_seconds for g in self.gateways)
        # A call makes two words at most: that its circuit is half open, and what became of it.
        assert len(self.log) <= 2 * self.calls + self.resets


SETTINGS = settings(max_examples=80, stateful_step_count=40, deadline=None)
SEARCH = settings(
    SETTINGS,
    max_examples=2000,
    phases=[Phase.generate],
    report_multiple_bugs=False,
    database=None,
    derandomize=True,
)


def test_whatever_gateways_hear_and_when_nothing_is_said_twice_and_nothing_stays_open() -> None:
    run_state_machine_as_test(Installation, settings=SETTINGS)


def _says_what_it_adopts(patch: pytest.MonkeyPatch) -> None:
    observe = Breakers.observe

    def saying(self: Breakers, data: BreakerChanged) -> None:
        observe(self, data)
        self._say("circuit/main", decision_event("_system", "endpoint/main", data))

    patch.setattr(Breakers, "observe", saying)


def _does_not_hear_of_resets(patch: pytest.MonkeyPatch) -> None:
    patch.setattr("gateway.endpoints.breakers.RESET", "another word")


def _never_ends(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Breakers, "_left", lambda self, word: 1e9)


@pytest.mark.parametrize("defect", [_says_what_it_adopts, _does_not_hear_of_resets, _never_ends])
def test_a_defect_would_be_found(monkeypatch: pytest.MonkeyPatch, defect: Callable[[pytest.MonkeyPatch], None]) -> None:
    defect(monkeypatch)
    with pytest.raises(AssertionError):
        run_state_machine_as_test(Installation, settings=SEARCH)
