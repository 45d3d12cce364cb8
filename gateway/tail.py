"""The directory of tenants, keys and agents, kept current by tailing the log's decision events.

Wake-ups make a change effective at once; polling makes it effective within a quarter of a second even if a wake-up is lost.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import msgspec
import structlog

from domain.decoding import decode_decision
from domain.events import EventData
from domain.ports.event_log import EventLog, LogUnavailable, StoredEvent
from domain.tenancy import Directory

POLL_SECONDS = 0.25
REST_SECONDS = 0.05
"""Every append wakes all followers of the log, and few appends are decisions: under load they are looked for 20 times a second."""
BATCH = 1000

Observer = Callable[[StoredEvent, EventData], Awaitable[None]]


class DirectoryTail:
    """Folds decision events into `directory`; `observe` is awaited before each is folded (to load a new tenant's key, say)."""

    def __init__(self, log: EventLog, directory: Directory, observe: Observer) -> None:
        self._log = log
        self._directory = directory
        self._observe = observe
        self._wake = asyncio.Event()
        self._caught_up = asyncio.Condition()
        self._logger = structlog.get_logger("emberlog.tail")
        self._passed: set[tuple[str, int]] = set()

    def wake(self) -> None:
        """There may be something new."""
        self._wake.set()

    async def catch_up(self) -> None:
        """Fold everything that is in the log by now. Raises `LogUnavailable`."""
        while events := await self._log.read_decisions(self._directory.position, BATCH):
            for event in events:
                await self._fold(event)
            async with self._caught_up:
                self._caught_up.notify_all()

    async def wait_for(self, position: int, timeout: float) -> None:
        """Wait until the directory has reached `position`. Raises TimeoutError after `timeout` seconds."""
        self.wake()
        async with asyncio.timeout(timeout), self._caught_up:
            await self._caught_up.wait_for(lambda: self._directory.position >= position)

    async def run(self) -> None:
        """Follow the log until cancelled."""
        while True:
            try:
                await self.catch_up()
            except LogUnavailable as error:
                self._logger.warning("directory_behind", reason=str(error))
            except Exception as error:  # revocations must go on taking effect, whatever else is wrong
                self._logger.error("directory_stuck", position=self._directory.position, exc_info=error)
            try:
                async with asyncio.timeout(POLL_SECONDS):
                    await self._wake.wait()
                await asyncio.sleep(REST_SECONDS)
            except TimeoutError:
                pass
            self._wake.clear()

    async def _fold(self, event: StoredEvent) -> None:
        try:
            data = decode_decision(event.type, event.data, event.schema_version)
        except msgspec.ValidationError as error:
            self._logger.error("event_unreadable", position=event.position, type=event.type, reason=str(error))
            self._directory.position = event.position
            return
        if data is None:
            self._of_newer_build(event)
            self._directory.position = event.position
            return
        await self._observe(event, data)
        self._directory.apply(event.position, event.tenant, data, event.version)

    def _of_newer_build(self, event: StoredEvent) -> None:
        """A newer gateway wrote it: what it means is unknown here, so it changes nothing here; once a kind, say so."""
        kind = (event.type, event.schema_version)
        if kind not in self._passed:
            self._passed.add(kind)
            self._logger.warning(
                "event_of_newer_build", position=event.position, type=event.type, schema_version=event.schema_version
            )
