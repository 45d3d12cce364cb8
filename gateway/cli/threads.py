"""`emberlog threads`: what became of the requests of a conversation or job."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from gateway.cli.common import ConfigOption, JsonOption, show, with_installation
from gateway.cli.views import WaitOption, caught_up

if TYPE_CHECKING:
    from gateway.manage import Installation

app = typer.Typer(help="Threads: the requests that name one, and their outcomes.", no_args_is_help=True)

_PAGE = 1000


@app.command("show")
def show_(
    thread: Annotated[str, typer.Argument(help="The thread, as requests name it.")],
    tenant: Annotated[str, typer.Option(help="The tenant whose it is.")],
    wait: WaitOption = 60.0,
    json: JsonOption = False,
    config: ConfigOption = None,
) -> None:
    """List the requests of a thread and their outcomes in the order of the log, of the last 30 days, without texts."""

    async def work(installation: Installation) -> list[dict[str, Any]]:
        from projections.threads import THREADS
        from projections.threads.query import read_thread
        from projections.usage.query import utc_text

        await installation.require_tenant(tenant)
        await caught_up(installation, [THREADS], wait)
        rows: list[dict[str, Any]] = []
        while page := await read_thread(
            installation.log.pool, tenant, thread, rows[-1]["position"] if rows else 0, _PAGE
        ):
            rows += page
        return [row | {"recorded_at": utc_text(row["recorded_at"])} for row in rows]

    rows = with_installation(config, work)
    columns = ["recorded_at", "state", "request_id", "attempt", "agent", "model", "billed_tokens", "nano_usd", "code"]
    show(rows, json, columns, [[row[name] for name in columns] for row in rows])
