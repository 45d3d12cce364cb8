"""How much may be in flight: requests and texts, as the gateway allows a connection. First come, first served."""

from __future__ import annotations

import asyncio
from collections import deque


class Window:
    """Waits instead of being refused with `too_many_in_flight`."""

    __slots__ = ("_waiting", "inputs", "max_inputs", "max_requests", "requests")

    def __init__(self, max_requests: int, max_inputs: int) -> None:
        self.max_requests = max_requests
        self.max_inputs = max_inputs
        self.requests = 0
        self.inputs = 0
        self._waiting: deque[tuple[asyncio.Future[None], int]] = deque()

    def resize(self, max_requests: int, max_inputs: int) -> None:
        """Follow what a newly opened session allows. What is in flight stays in flight."""
        self.max_requests = max_requests
        self.max_inputs = max_inputs
        self._admit()

    async def acquire(self, inputs: int) -> None:
        """Wait for a place for a request of `inputs` texts. Safe to cancel."""
        if not self._waiting and self._fits(inputs):
            self._take(inputs)
            return
        place = asyncio.get_running_loop().create_future()
        self._waiting.append((place, inputs))
        try:
            await place
        except asyncio.CancelledError:
            if place.done() and not place.cancelled():
                self.release(inputs)
            else:
                self._admit()  # whoever stood behind this one may fit now
            raise

    def release(self, inputs: int) -> None:
        """Give the place back."""
        self.requests -= 1
        self.inputs -= inputs
        self._admit()

    def _fits(self, inputs: int) -> bool:
        if not self.requests:  # a lone request always goes: the gateway judges it
            return True
        return self.requests < self.max_requests and self.inputs + inputs <= self.max_inputs

    def _take(self, inputs: int) -> None:
        self.requests += 1
        self.inputs += inputs

    def _admit(self) -> None:
        while self._waiting:
            place, inputs = self._waiting[0]
            if place.done():
                self._waiting.popleft()
            elif self._fits(inputs):
                self._waiting.popleft()
                self._take(inputs)
                place.set_result(None)
            else:
                return
