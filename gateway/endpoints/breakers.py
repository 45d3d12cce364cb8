"""The circuits of this process, one for each endpoint, and what processes tell each other of them.

A circuit that opens here is an event, and opens in every other process until the same time. One that was opened by word closes by word;
one that was opened by calls of this process closes by calls of this process. An operator's reset closes all. What was adopted is not
said again.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Collection, Mapping

import msgspec

from adapters.breaker import AioBreaker, CircuitPolicy, Transition
from domain.catalogue import Endpoint
from domain.endpoint_decisions import RESET
from domain.endpoint_health import patience
from domain.endpoints import PREPARING, endpoint_stream
from domain.events import SYSTEM_TENANT, BreakerChanged, DeploymentChanged, EventData
from domain.ports.breaker import CircuitState
from domain.ports.event_log import NewEvent
from gateway.decisions import decision_event

_SAME = 1_000_000
"""Circuits that are open until about the same time (microseconds) are open by the same word."""


class CircuitStanding(msgspec.Struct, frozen=True):
    """How the circuit of an endpoint stands in this process. `open_for` is in seconds; `adopted`: another process has said so."""

    state: CircuitState
    open_for: float
    failures: int
    adopted: bool


class _Held(msgspec.Struct, eq=False):
    breaker: AioBreaker
    owner: str | None
    adopted: bool = False


class Breakers:
    """All methods are called on the loop and take microseconds.

    `known` has the last word of any process on each circuit, as the log tells it; `say` takes an event to be written, with its subject;
    `instance` is who we are. `clock` is monotonic, `wall` the seconds since the epoch, which processes agree on.
    """

    def __init__(
        self,
        known: Mapping[str, BreakerChanged],
        policy: CircuitPolicy,
        say: Callable[[str, NewEvent], None],
        *,
        instance: Callable[[], str],
        clock: Callable[[], float] = time.monotonic,
        wall: Callable[[], float] = time.time,
    ) -> None:
        self.changes: Counter[tuple[str, str, str]] = Counter()
        """How often circuits of this process changed: (endpoint, from, to)."""
        self._known = known
        self._policy = policy
        self._say = say
        self._instance = instance
        self._clock = clock
        self._wall = wall
        self._held: dict[str, _Held] = {}
        self._words: dict[str, BreakerChanged] = {}
        self._listeners: list[Callable[[str], None]] = []

    def of(self, endpoint: Endpoint) -> AioBreaker:
        """The breaker of an endpoint."""
        held = self._held.get(endpoint.name)
        if held is None or held.owner != endpoint.tenant:
            held = self._make(endpoint)
        return held.breaker

    def on_change(self, callback: Callable[[str], None]) -> None:
        """Call `callback` with an endpoint's name whenever its circuit changed, or lets another trial call through."""
        self._listeners.append(callback)

    def standing(self, endpoint: Endpoint) -> CircuitStanding:
        """How the circuit of an endpoint stands."""
        breaker = self.of(endpoint)
        return CircuitStanding(
            breaker.state, breaker.open_for, breaker.failures, self._held[endpoint.name].adopted
        )  # fmt: skip

    def states(self) -> dict[str, CircuitState]:
        """Of every circuit that there is."""
        return {name: held.breaker.state for name, held in self._held.items()}

    def keep(self, endpoints: Collection[str]) -> None:
        """Forget the circuits of other endpoints than these: they are gone."""
        for name in [name for name in self._held if name not in endpoints]:
            del self._held[name]
        for change in [change for change in self.changes if change[0] not in endpoints]:
            del self.changes[change]

    def observe(self, data: EventData) -> None:
        """The log says this: act upon it where it is another's word on a circuit, or the endpoint is deployed anew."""
        if isinstance(data, DeploymentChanged) and data.state == PREPARING:
            # Whatever had this name before was another place. Calls that it has left say nothing any more.
            self._words.pop(data.endpoint, None)
            self._held.pop(data.endpoint, None)
        if not isinstance(data, BreakerChanged) or (data.instance is not None and data.instance == self._instance()):
            return
        self._words[data.endpoint] = data
        held = self._held.get(data.endpoint)
        if held is None:
            return  # made later, it asks for the last word
        breaker, before = held.breaker, held.breaker.state
        if data.state == CircuitState.CLOSED and (data.reason == RESET or held.adopted):
            breaker.force_close()
            held.adopted = False
        elif data.state == CircuitState.OPEN and (left := self._left(data)) > breaker.open_for:
            held.adopted = held.adopted or before is not CircuitState.OPEN
            breaker.force_open(left)
        else:
            return
        self._moved(data.endpoint, before, breaker.state)

    def _make(self, endpoint: Endpoint) -> _Held:
        name, owner = endpoint.name, endpoint.tenant
        breaker = AioBreaker(
            self._policy,
            patience=patience(endpoint),
            clock=self._clock,
            on_change=lambda transition: self._changed(name, held, transition),
            on_free=lambda: self._poke(name),
        )
        held = self._held[name] = _Held(breaker, owner)
        word = self._words.get(name) or self._known.get(name)
        if word is not None and word.state != CircuitState.CLOSED:
            # Whoever said so may be gone: once its time has passed, trial calls decide, here too.
            breaker.force_open(max(0.0, self._left(word)))
            held.adopted = True
        return held

    def _left(self, word: BreakerChanged) -> float:
        """Seconds that a circuit is open for yet, by word; never longer than was meant, however the clocks differ."""
        until = word.until or word.at
        return min(until - self._wall() * 1_000_000, until - word.at) / 1_000_000

    def _changed(self, name: str, held: _Held, transition: Transition) -> None:
        if self._held.get(name) is not held:
            return  # a call has outlasted its endpoint
        if transition.state is not CircuitState.HALF_OPEN:
            held.adopted = False
        at = int(self._wall() * 1_000_000)
        opened = transition.state is CircuitState.OPEN
        word = BreakerChanged(
            endpoint=name,
            state=transition.state.value,
            previous=transition.previous.value,
            reason=transition.reason,
            at=at,
            failures=transition.failures,
            until=at + int(self._policy.open_seconds * 1_000_000) if opened else None,
            instance=self._instance(),
        )
        if self._news(word):
            self._words[name] = word
            self._say(f"circuit/{name}", decision_event(held.owner or SYSTEM_TENANT, endpoint_stream(name), word))
        self._moved(name, transition.previous, transition.state)

    def _news(self, word: BreakerChanged) -> bool:
        """Whether the others do not know it: many processes find out the same at once."""
        last = self._words.get(word.endpoint) or self._known.get(word.endpoint)
        if last is None or last.state != word.state:
            return True
        return word.until is not None and word.until > (last.until or 0) + _SAME

    def _moved(self, name: str, before: CircuitState, after: CircuitState) -> None:
        self.changes[name, before.value, after.value] += before is not after
        self._poke(name)

    def _poke(self, name: str) -> None:
        for listener in self._listeners:
            listener(name)
