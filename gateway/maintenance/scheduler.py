"""The scheduler: runs each task when it is due by the database's clock, in whichever process takes its lease."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from datetime import timedelta
from uuid import UUID

import structlog

from adapters.postgres import maintenance
from adapters.postgres.maintenance import TaskState
from adapters.postgres.pool import Pool
from domain.events import MaintenanceRan
from domain.facts import system_fact
from domain.ports.event_log import Appended, AppendStatus, NewEvent
from gateway.maintenance.task import Task
from projections.worker import reason

_log = structlog.get_logger("emberlog.maintenance")
LEASE_SECONDS = 60.0
"""A run whose process has died is taken over this long after its last sign of life."""
POLL_SECONDS = 5.0


class Scheduler:
    """Run one in each process: `run` until cancelled. Tasks wait for nobody but themselves: each is asked for by a loop of its own.

    `append` writes the event of a run; `instance` is who runs it, for operators. A run that is cancelled with the scheduler is taken
    over when its lease has run out.
    """

    def __init__(
        self,
        pool: Pool,
        tasks: Sequence[Task],
        append: Callable[[NewEvent], Awaitable[Appended]],
        instance: Callable[[], UUID],
        *,
        lease_seconds: float = LEASE_SECONDS,
        poll_seconds: float = POLL_SECONDS,
    ) -> None:
        self.states: dict[str, TaskState] = {}
        """How each task stood when it was last asked for, whichever process ran it."""
        self._pool = pool
        self._tasks = tasks
        self._append = append
        self._instance = instance
        self._lease = timedelta(seconds=lease_seconds)
        self._poll_seconds = poll_seconds

    async def run(self) -> None:
        """Run what is due, until cancelled."""
        async with asyncio.TaskGroup() as group:
            for task in self._tasks:
                group.create_task(self._keep(task))

    async def once(self, task: Task) -> bool:
        """Run the task if it is due and nobody runs it; whether it was run to its end here. Raises what the pool and the log raise."""
        fence = await maintenance.claim(
            self._pool, task.name, self._instance(), period=task.every, lease=self._lease
        )  # fmt: skip
        return fence is not None and await self._run(task, fence)

    async def _keep(self, task: Task) -> None:
        while True:
            try:
                await self.once(task)
                if (seen := await maintenance.state(self._pool, task.name)) is not None:
                    self.states[task.name] = seen
            except Exception as error:
                # The database is away, mostly, or the log takes nothing. Whatever it is, the task must be asked for again.
                _log.warning("maintenance_postponed", task=task.name, reason=reason(error))
            await asyncio.sleep(self._poll_seconds)

    async def _run(self, task: Task, fence: int) -> bool:
        at, started = time.time_ns() // 1000, time.perf_counter()
        work = asyncio.ensure_future(task.run())
        holding = asyncio.create_task(self._hold(task, fence))
        try:
            await asyncio.wait((work, holding), return_when=asyncio.FIRST_COMPLETED)
            ended = work.done() and not work.cancelled()
            error = work.exception() if ended else None
        finally:
            work.cancel()
            holding.cancel()
            await asyncio.gather(work, holding, return_exceptions=True)
        # Asked again: this process may have been paused since it last was, and somebody else be at it.
        if not ended or not await maintenance.renew(self._pool, task.name, fence, lease=self._lease):
            _log.warning("maintenance_taken_over", task=task.name, fence=fence)
            return False
        failure = None if error is None else reason(error)
        ran = MaintenanceRan(
            task=task.name,
            at=at,
            ms=round((time.perf_counter() - started) * 1000),
            instance=str(self._instance()),
            result={} if error is not None else work.result(),
            error=failure,
        )
        if failure is not None:
            _log.error("maintenance_failed", task=task.name, reason=failure)
        event = system_fact(ran, f"{task.name}/{fence}", at)  # however often it is sent, the run is logged once
        if (appended := await self._append(event)).status is AppendStatus.REJECTED:
            _log.error("maintenance_not_logged", task=task.name, reason=appended.detail)
        return await maintenance.finish(
            self._pool, task.name, fence, period=task.every, error=failure, result=ran.result or None
        )

    async def _hold(self, task: Task, fence: int) -> None:
        """Renew the lease three times per lease time; returns when it is lost. While the database is away it keeps trying."""
        while True:
            await asyncio.sleep(self._lease.total_seconds() / 3)
            try:
                if not await maintenance.renew(self._pool, task.name, fence, lease=self._lease):
                    return
            except Exception as error:
                _log.warning("maintenance_lease_not_renewed", task=task.name, reason=reason(error))
