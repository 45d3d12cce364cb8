"""Deadlines of many requests with one timer: requests are kept in 20 ms buckets, so that a deadline costs two set operations."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Generic, Protocol, TypeVar

TICK = 0.020
"""Seconds; a deadline is acted on at most one tick late."""


class Expiring(Protocol):
    """What can expire. `deadline` is loop time in seconds."""

    deadline: float


T = TypeVar("T", bound=Expiring)


class Deadlines(Generic[T]):
    """Calls `expire` for each member whose deadline has passed. The timer runs only while there are members."""

    def __init__(self, loop: asyncio.AbstractEventLoop, expire: Callable[[T], None]) -> None:
        self._loop = loop
        self._expire = expire
        self._buckets: dict[int, set[T]] = {}
        self._timer: asyncio.TimerHandle | None = None
        self._done = 0

    def add(self, member: T) -> None:
        """Watch `member` until it expires or is removed; its deadline must not change meanwhile."""
        if self._timer is None:
            self._done = int(self._loop.time() / TICK) - 1
            self._timer = self._loop.call_later(TICK, self._tick)
        # A deadline already past goes into the next bucket to be looked at.
        self._buckets.setdefault(max(int(member.deadline / TICK), self._done + 1), set()).add(member)

    def remove(self, member: T) -> None:
        """Forget `member`; unknown members are ignored."""
        number = max(int(member.deadline / TICK), self._done + 1)
        bucket = self._buckets.get(number)
        if bucket is not None:
            bucket.discard(member)
            if not bucket:
                del self._buckets[number]

    def close(self) -> None:
        """Stop the timer; nothing expires any more."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._buckets.clear()

    def _tick(self) -> None:
        now = int(self._loop.time() / TICK) - 1
        # After a pause (a suspended process) the range is long: look at the buckets there are instead.
        numbers = (
            range(self._done + 1, now + 1)
            if now - self._done < len(self._buckets)
            else [n for n in self._buckets if n <= now]
        )
        for number in numbers:
            for member in self._buckets.pop(number, ()):
                self._expire(member)
        self._done = now
        self._timer = self._loop.call_later(TICK, self._tick) if self._buckets else None
