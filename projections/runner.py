"""The runner: every projection in this process, each owned by one process at a time."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from uuid import uuid4

from projections.agent_preferences import AGENT_PREFERENCES
from projections.alerts import ALERTS
from projections.cost import COST
from projections.cursor import Standing
from projections.model_catalog import MODEL_CATALOG
from projections.projection import Projection, ProjectionHalted
from projections.provider_health import PROVIDER_HEALTH
from projections.quota import QUOTA
from projections.requests import REQUESTS
from projections.source import Read
from projections.tenant_models import TENANT_MODELS
from projections.threads import THREADS
from projections.usage import USAGE
from projections.worker import BATCH, POLL_SECONDS, Trouble, Worker

ALL: tuple[Projection, ...] = (
    USAGE,
    REQUESTS,
    COST,
    QUOTA,
    THREADS,
    ALERTS,
    MODEL_CATALOG,
    TENANT_MODELS,
    AGENT_PREFERENCES,
    PROVIDER_HEALTH,
)
LEASE_SECONDS = 5.0


class Runner:
    """Keeps projections up with the log. Run one in each process: they share the work by fenced leases on the database's clock.

    `start` and `stop`, or `run` within a task. `wake` whenever the log may have grown; polling stands behind it. `dsn` logs in as a
    member of the application's role. `read` (`EventLog.read`) brings archived events, and old ones in today's shape; `on_trouble` is
    told of events that a view cannot fold.
    """

    def __init__(
        self,
        dsn: str,
        projections: Sequence[Projection] = ALL,
        *,
        batch: int = BATCH,
        lease_seconds: float = LEASE_SECONDS,
        poll_seconds: float = POLL_SECONDS,
        read: Read | None = None,
        on_trouble: Trouble | None = None,
    ) -> None:
        owner = uuid4()
        self._workers = {
            p.name: Worker(
                dsn,
                p,
                owner,
                batch=batch,
                lease_seconds=lease_seconds,
                poll_seconds=poll_seconds,
                read=read,
                on_trouble=on_trouble,
            )
            for p in projections
        }
        self._tasks: list[asyncio.Task[None]] = []

    async def start(self) -> None:
        """Begin to fold, beside the caller. The database may still be away: it is tried again until `stop`."""
        if not self._tasks:
            self._tasks = [asyncio.create_task(worker.run()) for worker in self._workers.values()]

    async def stop(self) -> None:
        """Finish the batches at work and let others own the projections. Idempotent."""
        for worker in self._workers.values():
            worker.stop()
        if self._tasks:
            _, late = await asyncio.wait(self._tasks, timeout=10)
            for task in late:
                task.cancel()
            await asyncio.gather(*self._tasks, return_exceptions=True)

    async def run(self) -> None:
        """Fold until cancelled or stopped."""
        await self.start()
        try:
            await asyncio.gather(*self._tasks)
        finally:
            await self.stop()

    def wake(self) -> None:
        """There may be new events."""
        for worker in self._workers.values():
            worker.wake()

    def lag(self) -> dict[str, tuple[int, float]]:
        """Of each projection: events not folded yet, and the age of the oldest in seconds."""
        return {name: worker.lag() for name, worker in self._workers.items()}

    def standings(self) -> dict[str, Standing]:
        """Where each projection stood when it was last looked at; those never looked at are missing."""
        return {name: worker.standing for name, worker in self._workers.items() if worker.standing is not None}

    def standing(self, name: str) -> Standing | None:
        """Where a projection stood when it was last looked at; None before the first look."""
        return self._workers[name].standing

    async def wait_for(self, name: str, position: int, timeout: float) -> Standing:
        """Wait until the projection has folded everything up to `position`, by whichever process.

        Raises TimeoutError after `timeout` seconds, `ProjectionHalted` if it cannot get there, KeyError for an unknown name.
        """
        worker = self._workers[name]
        worker.wake()
        async with asyncio.timeout(timeout):
            while True:
                changed, seen = worker.changed, worker.standing
                if seen is not None and seen.position >= position:
                    return seen
                if seen is not None and (reason := worker.halted) is not None:
                    raise ProjectionHalted(
                        f"the projection {name!r} stands at position {seen.position} and cannot go on: {reason}"
                    )
                await changed.wait()
