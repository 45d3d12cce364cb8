"""How many calls may run at an endpoint at once, over all its lanes."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from gateway.dispatch.lane import Lane


class Slots:
    """The slots of one endpoint. Lanes that found none free are served in turn: a freed slot is handed to the next of them."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.used = 0
        self._waiting: dict[Lane, None] = {}
        self._granted: set[Lane] = set()

    def acquire(self, lane: Lane) -> bool:
        """Take a slot (the one handed to this lane, where there is one). False: the lane is woken when one is free."""
        if lane in self._granted:
            self._granted.discard(lane)
            return True
        if self.used < self.limit:
            self.used += 1
            return True
        self._waiting[lane] = None
        return False

    def release(self) -> None:
        """Give a slot back."""
        if self._waiting and self.used <= self.limit:
            lane = next(iter(self._waiting))
            del self._waiting[lane]
            self._granted.add(lane)
            lane.poke()
        else:
            self.used -= 1

    def settle(self, lane: Lane) -> None:
        """The lane has started what it wanted: a slot that it was handed and did not use goes to the next."""
        if lane in self._granted:
            self._granted.discard(lane)
            self.release()
