"""How fast a rebuild goes: as fast as it can while nobody appends, and beside live traffic with a rest after each small batch."""

from __future__ import annotations

import asyncio
import time

BATCH = 500_000
"""Events of a batch while nobody appends: about half a second of work."""
BUSY_SECONDS = 0.05
"""How long a batch beside live traffic may take; it rests as long, so that a rebuild takes at most half of one core from it."""
BUSY_RATE = 200.0
"""Appended events a second that count as live traffic."""
_WINDOW_SECONDS = 0.5


class Pace:
    """Tells how many events to fold next, from how fast the log's head moves."""

    def __init__(self) -> None:
        self.busy = False
        self._head: int | None = None
        self._since = 0.0
        self._rate = 20_000.0

    def batch(self, head: int) -> int:
        """The size of the next batch, given the log's head."""
        now = time.monotonic()
        if self._head is None:
            self._head, self._since = head, now
        elif now - self._since >= _WINDOW_SECONDS:
            self.busy = (head - self._head) / (now - self._since) > BUSY_RATE
            self._head, self._since = head, now
        return max(1_000, int(self._rate * BUSY_SECONDS)) if self.busy else BATCH

    async def rest(self, seconds: float, events: int) -> None:
        """After a batch of `events` that took `seconds`."""
        self._rate = events / max(seconds, 1e-4)
        if self.busy:
            await asyncio.sleep(seconds)
