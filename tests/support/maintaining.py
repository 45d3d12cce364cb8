"""What periodic tasks are tested with: a scheduler's surroundings on a real log, and tasks that count their runs."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Any
from uuid import UUID

import msgspec

from adapters.appender import Appender
from adapters.postgres.event_log import PostgresEventLog
from adapters.postgres.pool import Connection
from domain.events import MaintenanceRan
from gateway.maintenance.scheduler import Scheduler
from gateway.maintenance.task import Task
from tests.support.databases import with_user

HOUR = timedelta(hours=1)
DUE = "UPDATE emberlog.maintenance SET next_run_at = clock_timestamp() - interval '1 s'"


class Gatewayish:
    """What a gateway gives its scheduler: a log, an instance and an appender."""

    def __init__(self, dsn: str, log: PostgresEventLog, instance: UUID, appender: Appender) -> None:
        self.dsn = dsn
        self.log = log
        self.instance = instance
        self.appender = appender

    def scheduler(self, *tasks: Task, lease: float = 60.0, poll: float = 0.02) -> Scheduler:
        return Scheduler(
            self.log.pool, tasks, self.appender.append, lambda: self.instance, lease_seconds=lease, poll_seconds=poll
        )

    async def ran(self) -> list[tuple[MaintenanceRan, str, int | None]]:
        """The runs that the log tells of: their data, tenant and version."""
        return [
            (msgspec.json.decode(e.data, type=MaintenanceRan), e.tenant, e.version)
            for e in await self.log.read(0, 1000)
            if e.type == MaintenanceRan.TYPE
        ]


@asynccontextmanager
async def gatewayish(dsn: str) -> AsyncIterator[Gatewayish]:
    log = await PostgresEventLog.connect(with_user(dsn, "emberlog_gateway"))
    instance = await log.register_instance("test", 3600)
    appender = Appender(log, instance)
    try:
        yield Gatewayish(dsn, log, instance, appender)
    finally:
        await appender.close()
        await log.close()


class Counted:
    """A task that counts its runs, and fails, or waits for `go`, if told."""

    def __init__(self, name: str = "chores", *, period: timedelta = HOUR) -> None:
        self.runs = 0
        self.error: BaseException | None = None
        self.go = asyncio.Event()
        self.go.set()
        self.begun = asyncio.Event()
        self.task = Task(name, period, self.run)

    async def run(self) -> dict[str, int]:
        self.runs += 1
        self.begun.set()
        await self.go.wait()
        if self.error is not None:
            raise self.error
        return {"done": self.runs}


@asynccontextmanager
async def running(*schedulers: Scheduler) -> AsyncIterator[None]:
    tasks = [asyncio.create_task(scheduler.run()) for scheduler in schedulers]
    try:
        yield
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def due(owner: Connection, *schedulers: Scheduler) -> None:
    """Make every task of the schedulers known and due."""
    for scheduler in schedulers:
        for task in scheduler._tasks:
            assert not await scheduler.once(task), "a task never seen before is not due at once"
    await owner.execute(DUE)


async def row(owner: Connection, task: str = "chores") -> Any:
    return await owner.fetchrow("SELECT * FROM emberlog.maintenance WHERE task = $1", task)
