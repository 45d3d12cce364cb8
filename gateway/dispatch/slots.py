"""Leave to call an endpoint, over all its lanes: how many calls at once, how fast, and whether its circuit lets them through.

Limits are taken to be the endpoint's, not a model's: its lanes share one credential, and most providers that limit a model limit the
account as well. Models whose limits are apart are kept apart by an endpoint each.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from domain.ports.breaker import Breaker, CircuitState
from gateway.dispatch.pace import Pace
from gateway.dispatch.regather import TICK

if TYPE_CHECKING:
    from gateway.dispatch.lane import Lane


class Slots:
    """The slots of one endpoint. Lanes that found none free are served in turn: a freed slot is handed to the next of them."""

    def __init__(self, limit: int, breaker: Breaker | None = None) -> None:
        self.pace = Pace(limit)
        self.breaker = breaker
        self.used = 0
        self._loop = asyncio.get_running_loop()
        self._waiting: dict[Lane, None] = {}
        self._granted: set[Lane] = set()
        self._timer: asyncio.TimerHandle | None = None

    @property
    def open_for(self) -> float | None:
        """Seconds until the endpoint's circuit lets calls through; None where it is not open."""
        breaker = self.breaker
        return breaker.open_for if breaker is not None and breaker.state is CircuitState.OPEN else None

    @property
    def paused_for(self) -> float:
        """Seconds until the pause ends that the endpoint has asked for; 0 where there is none."""
        return max(0.0, self.pace.until - self._loop.time())

    @property
    def pause_left(self) -> float:
        """Seconds of the pause that was asked for; not above 0 where there is none."""
        return self.pace.until - self._loop.time()

    def acquire(self, lane: Lane) -> bool:
        """Take a slot (the one handed to this lane, where there is one). False: the lane is woken when one is free."""
        if lane not in self._granted:
            self._waiting[lane] = None
            self.hand_out(lane)
        if lane not in self._granted:
            return False
        self._granted.discard(lane)
        return True

    def release(self) -> None:
        """Give a slot back."""
        self.used -= 1
        self.hand_out()

    def settle(self, lane: Lane) -> None:
        """The lane has started what it wanted: a slot that it was handed and did not use goes to the next."""
        if lane in self._granted:
            self._granted.discard(lane)
            self.release()

    def pause(self, seconds: float) -> None:
        """Start no call for so long. The lanes that wait are woken: texts of theirs may have somewhere else to go."""
        self.pace.pause(self._loop.time() + seconds)
        for lane in self._waiting:
            lane.poke()

    def hand_out(self, asking: Lane | None = None) -> None:
        """Hand what is free to the lanes that wait, in turn; each but `asking` is woken."""
        waiting, pace = self._waiting, self.pace
        if not waiting:
            return
        now = self._loop.time()
        while waiting and self.used < pace.allowed and (self.breaker is None or self.breaker.would_admit()):
            ready = pace.ready_at()
            if now < ready - TICK:
                pace.hold(now)
                self._wake_at(ready)
                return
            lane = next(iter(waiting))
            del waiting[lane]
            self.used += 1
            pace.start(now)
            self._granted.add(lane)
            if lane is not asking:
                lane.poke()

    def close(self) -> None:
        """Cancel what is timed."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _wake_at(self, when: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer = self._loop.call_at(when, self._wake)

    def _wake(self) -> None:
        self._timer = None
        self.hand_out()
