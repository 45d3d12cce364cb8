"""What commands that read views have in common: they wait until the views hold what is in the log."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Annotated

import typer

from gateway.cli.common import Failed

if TYPE_CHECKING:
    from gateway.manage import Installation
    from projections.projection import Projection

WaitOption = Annotated[float, typer.Option(min=0.1, help="Seconds to wait for the views to reach the log's head.")]


async def caught_up(installation: Installation, views: list[Projection], wait: float) -> None:
    """Return once the views hold everything up to the log's head as of the call. Raises `Failed` after `wait` seconds."""
    from projections.runner import Runner

    head = await installation.log.head()
    # Where a gateway runs it owns the views and is only waited for; where none does, they are folded here.
    runner = Runner(installation.places.app_dsn, views, read=installation.log.read)
    await runner.start()
    try:
        await asyncio.gather(*(runner.wait_for(view.name, head, wait) for view in views))
    except TimeoutError:
        raise Failed(f"after {wait:g} s the views are not at the log's head: give them longer with --wait") from None
    finally:
        await runner.stop()
