"""Alerts for the time of one command, whether a gateway runs or not."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress

from domain.decision import Decision
from domain.plane import ControlPlane
from gateway.alerts.desk import AlertDesk, Take
from gateway.alerts.evaluator import Evaluator
from gateway.control import Written
from gateway.manage import Installation
from projections.alerts import ALERTS
from projections.projection import ProjectionHalted
from projections.quota import QUOTA
from projections.runner import Runner

VIEW_SECONDS = 60.0
"""How long a command waits for the views to reach the log's head."""


@asynccontextmanager
async def open_desk(installation: Installation) -> AsyncIterator[tuple[AlertDesk, Take]]:
    """The desk, and the way to decide. Where a gateway runs it owns the views and is only waited for; where none does, they are folded here.

    Raises TimeoutError where the views do not get to the log's head.
    """
    pool = installation.log.pool
    async with installation.control() as control:
        runner = Runner(installation.places.app_dsn, [QUOTA, ALERTS], read=installation.log.read)

        async def appear(position: int) -> None:
            with suppress(TimeoutError, ProjectionHalted):
                await runner.wait_for(ALERTS.name, position, VIEW_SECONDS)

        async def take(stream: str, decide: Callable[[ControlPlane], list[Decision]]) -> Written:
            return await control.run(decide, stream=stream)

        await runner.start()
        try:
            head = await installation.log.head()
            for view in (QUOTA, ALERTS):
                await runner.wait_for(view.name, head, VIEW_SECONDS)
            evaluator = Evaluator(pool, control.plane, control.append)
            yield AlertDesk(pool, evaluator, control.append, appear), take
        finally:
            await runner.stop()
