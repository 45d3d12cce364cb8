"""The breaker port on `aiobreaker`, which counts failures and holds the state; everything that it gets wrong is ours.

`aiobreaker` lets every call through while half open and closes on the first success, hides the error of the call that trips it, and has
no neutral end of a call (an excluded error counts as a success). So no call is made through it: here `admit` gates and counts trial calls,
and when a call has ended in a way that counts it is told so; a success that is not yet enough, or changes nothing, never reaches it. It
reads the wall clock, UTC and local mixed: it is never asked about time, the clock is ours and monotonic. Its storage is memory.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Coroutine
from contextlib import suppress
from typing import Any, TypeVar, cast

import msgspec
from aiobreaker import CircuitBreaker, CircuitBreakerError, CircuitBreakerState

from domain.ports.breaker import CircuitState
from domain.ports.provider import ProviderError, ProviderFault

T = TypeVar("T")

COUNTED = frozenset({ProviderFault.TIMEOUT, ProviderFault.CONNECTION, ProviderFault.SERVER})
"""The faults that are the endpoint's. Of the others a rate limit paces, `authentication` is our credential's fault (another call would not
mend it: health tells it), and what was refused, too long, too large or badly answered may be one text's doing: no sender can trip a
circuit for everybody by such a text."""

FAILURES, TRIAL_FAILED, TRIALS_SUCCEEDED, ELAPSED = "failures", "trial_failed", "trials_succeeded", "elapsed"
"""Why a circuit changes by itself: the reasons of `BreakerChanged`."""


UNHURRIED = 3.0
"""Times as long as its calls take of late: a call that got less time than that, because its asker had no more, was the asker's haste."""
_LATE_WEIGHT = 0.02
"""What the latest good call counts in how long calls take of late, where it was shorter."""


class CircuitPolicy(msgspec.Struct, frozen=True):
    """So many `failures` in a row open a circuit for `open_seconds`; then at most `trial_calls` run at once, until one fails or
    `successes` of them have succeeded.
    """

    failures: int = 5
    open_seconds: float = 30.0
    trial_calls: int = 3
    successes: int = 2


class Transition(msgspec.Struct, frozen=True, gc=False):
    """A circuit changed by what its calls said, or by the time. `failures` in a row had been counted by then."""

    previous: CircuitState
    state: CircuitState
    reason: str
    failures: int


class _Circuit(CircuitBreaker):  # type: ignore[misc]  # it is untyped
    """`aiobreaker` without its clock: it says when it moves, and is never asked until when."""

    opens_at = None

    def __init__(self, fail_max: int, moved: Callable[[CircuitState], None]) -> None:
        super().__init__(fail_max=fail_max)
        self._moved = moved

    def open(self) -> None:
        """Open, noting no time of its own."""
        self.state = self._state_storage.state = CircuitBreakerState.OPEN
        self._moved(CircuitState.OPEN)

    def half_open(self) -> None:
        """Half open."""
        super().half_open()
        self._moved(CircuitState.HALF_OPEN)

    def close(self) -> None:
        """Close, with no failures counted."""
        super().close()
        self._moved(CircuitState.CLOSED)


class AioBreaker:
    """Implements `domain.ports.breaker.Breaker`.

    A timeout counts if the call was given `patience` seconds, or `UNHURRIED` times what good calls take of late; else it was its asker's
    deadline that was short, and nobody can trip a circuit for the others by that. `on_change` is told of every change that comes of calls or of the time, not of `force_*`; `on_free` whenever another trial call may go
    out. Both are called on the loop and must not raise. `clock` is monotonic, in seconds.
    """

    def __init__(
        self,
        policy: CircuitPolicy,
        *,
        patience: float = 0.0,
        clock: Callable[[], float] = time.monotonic,
        on_change: Callable[[Transition], None] | None = None,
        on_free: Callable[[], None] | None = None,
    ) -> None:
        self._policy = policy
        self._patience = patience
        self._takes: float | None = None
        self._clock = clock
        self._on_change = on_change
        self._on_free = on_free
        self._circuit = _Circuit(policy.failures, self._moved)
        self._state = CircuitState.CLOSED
        self._until = 0.0
        self._period = 0
        """Grows with every change: a call that was admitted in an earlier period says nothing about this one."""
        self._trials = 0
        self._succeeded = 0
        self._forced = False

    @property
    def state(self) -> CircuitState:
        """As of now: an open one whose time has passed is half open."""
        if self._state is CircuitState.OPEN and self._clock() >= self._until:
            return CircuitState.HALF_OPEN
        return self._state

    @property
    def open_for(self) -> float:
        """Seconds until an open circuit lets trial calls through; 0 where it is not open."""
        return max(0.0, self._until - self._clock()) if self._state is CircuitState.OPEN else 0.0

    @property
    def failures(self) -> int:
        """Failures in a row."""
        return cast("int", self._circuit.fail_counter)

    def would_admit(self) -> bool:
        """Whether `admit` would give a permit now."""
        if self._state is CircuitState.CLOSED:
            return True
        return self.state is CircuitState.HALF_OPEN and self._trials < self._policy.trial_calls

    def admit(self) -> AioPermit | None:
        """A permit; None while the circuit is open, or half open with all its trial calls out."""
        if self._state is CircuitState.CLOSED:
            return AioPermit(self, self._period, trial=False)
        if not self.would_admit():
            return None
        if self._state is CircuitState.OPEN:
            self._circuit.half_open()
        self._trials += 1
        return AioPermit(self, self._period, trial=True)

    def force_open(self, seconds: float) -> None:
        """Open for so long, whatever was counted here; 0: half open at once."""
        if self._state is not CircuitState.OPEN:
            self._force(self._circuit.open)
        self._until = self._clock() + seconds

    def force_close(self) -> None:
        """Close and count anew."""
        self._force(self._circuit.close)

    def _force(self, move: Callable[[], None]) -> None:
        self._forced = True
        try:
            move()
        finally:
            self._forced = False

    def _moved(self, state: CircuitState) -> None:
        previous, self._state = self._state, state
        self._period += 1
        self._succeeded = 0
        if state is CircuitState.OPEN:
            self._until = self._clock() + self._policy.open_seconds
        if self._on_change is not None and not self._forced:
            self._on_change(Transition(previous, state, _REASONS[previous, state], self.failures))

    async def run(self, work: Callable[[], Awaitable[T]], permit: AioPermit) -> T:
        """Make the call of a permit. Where the circuit has changed since it was admitted, what comes of it says nothing any more."""
        began = self._clock()
        try:
            answer = await work()
        except Exception as error:
            if permit.period == self._period and self._counts(error, began):
                self._failed(error)
            raise
        else:
            if permit.period == self._period:
                self._answered(began, trial=permit.trial)
            return answer
        finally:
            if permit.trial:
                self.ended()

    def _counts(self, error: Exception, began: float) -> bool:
        if not isinstance(error, ProviderError):
            return True
        return error.fault in COUNTED and not self._hurried(error.fault, began)

    def _failed(self, error: Exception) -> None:
        def fail() -> None:
            raise error

        # What it raises is the error itself, or an error of its own about the circuit in place of that.
        with suppress(type(error), CircuitBreakerError):
            self._circuit.call(fail)

    def _answered(self, began: float, *, trial: bool) -> None:
        took, takes = self._clock() - began, self._takes
        self._takes = took if takes is None or took > takes else takes + (took - takes) * _LATE_WEIGHT
        if trial:
            self._succeeded += 1
            if self._succeeded < self._policy.successes:
                return
        if trial or self._circuit.fail_counter:
            self._circuit.call(_nothing)

    def _hurried(self, fault: ProviderFault, began: float) -> bool:
        if fault is not ProviderFault.TIMEOUT:
            return False
        enough = self._patience if self._takes is None else min(self._patience, self._takes * UNHURRIED)
        return self._clock() - began < enough

    def ended(self) -> None:
        """A trial call ended, or was not made."""
        self._trials -= 1
        if self._on_free is not None and self._state is CircuitState.HALF_OPEN:
            self._on_free()


def _nothing() -> None:
    """A call that went well."""


_REASONS = {
    (CircuitState.CLOSED, CircuitState.OPEN): FAILURES,
    (CircuitState.HALF_OPEN, CircuitState.OPEN): TRIAL_FAILED,
    (CircuitState.HALF_OPEN, CircuitState.CLOSED): TRIALS_SUCCEEDED,
    (CircuitState.OPEN, CircuitState.HALF_OPEN): ELAPSED,
}


class AioPermit:
    """Leave to make one call: see the port. Used twice it raises RuntimeError."""

    __slots__ = ("_breaker", "_used", "period", "trial")

    def __init__(self, breaker: AioBreaker, period: int, *, trial: bool) -> None:
        self._breaker = breaker
        self._used = False
        self.period = period
        self.trial = trial

    def run(self, work: Callable[[], Awaitable[T]]) -> Coroutine[Any, Any, T]:
        """Make the call and take its end into account. What `work` raises is raised as it is; an error that is no `ProviderError` counts."""
        self._use()
        return self._breaker.run(work, self)

    def give_back(self) -> None:
        """The call is not made after all."""
        self._use()
        if self.trial:
            self._breaker.ended()

    def _use(self) -> None:
        if self._used:
            raise RuntimeError("a permit is for one call: ask `admit` for another")
        self._used = True
