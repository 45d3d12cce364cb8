"""Writes what this process finds out about endpoints to the log: surely, beside everything else, and the latest of each subject only."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from domain.ports.event_log import NewEvent


class Announcer:
    """`append` returns once the log has the event, however long that takes. `run` until cancelled.

    While it waits, a newer event of a subject takes the place of an older one: an endpoint that changes again and again while the log is
    away leaves one event.
    """

    def __init__(self, append: Callable[[NewEvent], Awaitable[object]]) -> None:
        self._append = append
        self._pending: dict[str, NewEvent] = {}
        self._wake = asyncio.Event()

    def say(self, subject: str, event: NewEvent) -> None:
        """Have the event written, after those that were given before."""
        self._pending.pop(subject, None)
        self._pending[subject] = event
        self._wake.set()

    async def run(self) -> None:
        """Write."""
        while True:
            await self._wake.wait()
            self._wake.clear()
            while self._pending:
                await self._append(self._pending.pop(next(iter(self._pending))))
