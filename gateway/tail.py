"""The control plane, kept current by following the log's decision events.

Wake-ups make a change effective at once; polling makes it effective within a quarter of a second even if a wake-up is lost.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import msgspec
import structlog

from domain.decoding import decode_decision
from domain.events import EventData
from domain.plane import ControlPlane
from domain.ports.event_log import EventLog, LogUnavailable, StoredEvent

POLL_SECONDS = 0.25
REST_SECONDS = 0.05
"""Every append wakes all followers of the log, and few appends are decisions: under load they are looked for 20 times a second."""
BATCH = 1000

Observer = Callable[[StoredEvent, EventData], Awaitable[None]]


class PlaneTail:
    """Folds decision events into `plane`; `observe` is awaited before each is folded (to load a new tenant's key, say)."""

    def __init__(self, log: EventLog, plane: ControlPlane, observe: Observer) -> None:
        self._log = log
        self._plane = plane
        self._observe = observe
        self._wake = asyncio.Event()
        self._folding = asyncio.Lock()
        self._logger = structlog.get_logger("emberlog.tail")
        self._passed: set[tuple[str, int]] = set()

    def wake(self) -> None:
        """There may be something new."""
        self._wake.set()

    async def catch_up(self) -> None:
        """Fold everything that is in the log by now. Raises `LogUnavailable`."""
        async with self._folding:
            while events := await self._log.read_decisions(self._plane.position, BATCH):
                for event in events:
                    await self._fold(event)

    async def wait_for(self, position: int, timeout: float) -> None:
        """Wait until every decision up to `position`, which is in the log, is folded. Raises TimeoutError after `timeout` seconds."""
        async with asyncio.timeout(timeout):
            while self._plane.position < position:
                try:
                    await self.catch_up()
                    return  # what lies between the last decision and `position` is none
                except Exception:  # said by `run`, which tries again, too
                    await asyncio.sleep(REST_SECONDS)

    async def run(self) -> None:
        """Follow the log until cancelled."""
        while True:
            try:
                await self.catch_up()
            except LogUnavailable as error:
                self._logger.warning("control_plane_behind", reason=str(error))
            except Exception as error:  # revocations must go on taking effect, whatever else is wrong
                self._logger.error("control_plane_stuck", position=self._plane.position, exc_info=error)
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
            self._plane.passed(event.position, event.stream, event.version)
            return
        if data is None:
            self._of_newer_build(event)
            self._plane.passed(event.position, event.stream, event.version)
            return
        await self._observe(event, data)
        self._plane.apply(event.position, event.tenant, event.stream, event.version, data, event.recorded_at)

    def _of_newer_build(self, event: StoredEvent) -> None:
        """A newer gateway wrote it: what it means is unknown here, so it changes nothing here; once a kind, say so."""
        kind = (event.type, event.schema_version)
        if kind not in self._passed:
            self._passed.add(kind)
            self._logger.warning(
                "event_of_newer_build", position=event.position, type=event.type, schema_version=event.schema_version
            )
