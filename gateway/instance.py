"""A process as a writer of the log: a fenced lease, renewed while it lives, and the tidying up after those that died."""

from __future__ import annotations

import asyncio
import os
import platform
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from uuid import UUID

import structlog

from adapters.appender import AppenderClosed, QueueFull
from domain.ports.event_log import EventLog, InstanceFenced, LogUnavailable

_log = structlog.get_logger("emberlog.instance")


def describe(pid: int | None = None) -> str:
    """Who a process of this machine is, for operators and to fence it when it is dead: host, boot id and process id."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        boot = "unknown"
    return f"gateway {platform.node()} boot {boot} pid {os.getpid() if pid is None else pid}"


class Lease:
    """Renews an instance's lease three times per lease time; calls `on_fenced` once if the instance has been fenced."""

    def __init__(self, log: EventLog, instance: UUID, seconds: float, on_fenced: Callable[[], None]) -> None:
        self._log = log
        self._instance = instance
        self._seconds = seconds
        self._on_fenced = on_fenced

    async def run(self) -> None:
        """Renew until cancelled or fenced. While the log is away it keeps trying: whoever fences us decides."""
        while True:
            await asyncio.sleep(self._seconds / 3)
            try:
                await self._log.renew_instance(self._instance, self._seconds)
            except LogUnavailable as error:
                _log.warning("lease_not_renewed", reason=str(error))
            except InstanceFenced:
                _log.error("instance_fenced", instance=str(self._instance))
                self._on_fenced()
                return


class Reconciler:
    """Fences instances whose lease ran out and gives up what they left open. Safe to run in every process at once: the first wins.

    Nobody can renew a lease while the log is away, or while this process was paused: for one lease after that, nobody is fenced.
    """

    def __init__(
        self,
        log: EventLog,
        abandon_open: Callable[[], Awaitable[int]],
        lease_seconds: float = 10.0,
        seconds: float = 2.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._log = log
        self._abandon_open = abandon_open
        self._lease_seconds = lease_seconds
        self._seconds = seconds
        self._clock = clock
        self._seen: float | None = None
        self._fence_from = clock()

    async def once(self) -> int:
        """One round; returns how many attempts were abandoned. Raises what the log and the appender raise."""
        now = self._clock()
        if self._seen is not None and now - self._seen > self._seconds + self._lease_seconds:
            self._fence_from = now + self._lease_seconds
        try:
            if now >= self._fence_from:
                for instance in await self._log.fence_expired():
                    _log.warning("instance_expired", instance=str(instance))
            abandoned = await self._abandon_open()
        except LogUnavailable:
            self._fence_from = self._clock() + self._lease_seconds
            raise
        finally:
            self._seen = self._clock()
        if abandoned:
            _log.warning("requests_abandoned", count=abandoned)
        return abandoned

    async def run(self) -> None:
        """A round every `seconds`, until cancelled."""
        while True:
            try:
                await self.once()
            except (LogUnavailable, InstanceFenced, AppenderClosed, QueueFull) as error:
                _log.warning("reconcile_postponed", reason=str(error))
            await asyncio.sleep(self._seconds)
