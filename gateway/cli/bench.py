"""`emberlog bench`: measure the gateway, the event log alone, or its views, on this machine."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Annotated, Any

import typer

from gateway.cli.run import fail

app = typer.Typer(
    help="Measure this machine: the gateway (without a further command), the log, the views.",
    invoke_without_command=True,
)
JsonFlag = Annotated[bool, typer.Option("--json", help="One JSON document on standard output.")]


@app.callback()
def gateway(
    context: typer.Context,
    seconds: Annotated[float, typer.Option(min=1, help="How long each scenario is measured.")] = 10.0,
    agents: Annotated[int, typer.Option(min=1, help="Agents of the closed loops, one connection each.")] = 64,
    provider_ms: Annotated[float, typer.Option(min=0, help="How long the simulated provider takes.")] = 5.0,
    rate: Annotated[float, typer.Option(min=1, help="Requests a second offered in the open loop.")] = 2000.0,
    json: JsonFlag = False,
) -> None:
    """Measure this machine: requests/s, latency, CPU per request, texts per provider call, events/s."""
    if context.invoked_subcommand is not None:
        return
    from gateway.bench.run import BenchFailed
    from gateway.bench.run import bench as run
    from gateway.demo.process import GatewayFailed

    try:
        run(seconds, agents, provider_ms, rate, json)
    except (BenchFailed, GatewayFailed) as error:
        raise fail(str(error)) from None


@app.command()
def log(
    rows: Annotated[
        int, typer.Option(min=0, help="Also grow the log to so many events, and show what that costs.")
    ] = 0,
    json: JsonFlag = False,
) -> None:
    """Measure the event log alone: appends by batch size, at a given rate and from several processes; reads by cursor."""
    from gateway.bench.log import run
    from gateway.bench.tables import show_log

    _measure(lambda say: run(rows, say), show_log, json)


@app.command()
def projections(
    rows: Annotated[int, typer.Option(min=1000, help="Events in the log that the views are rebuilt from.")] = 1_000_000,
    json: JsonFlag = False,
) -> None:
    """Measure the views: rebuilds, their memory, what they do to appends, and how far views are behind under load."""
    from gateway.bench.tables import show_projections
    from gateway.bench.views import run

    _measure(lambda say: run(rows, say), show_projections, json)


@app.command()
def config(
    changes: Annotated[int, typer.Option(min=1, help="How many changes are made.")] = 200, json: JsonFlag = False
) -> None:
    """Measure how long a change of configuration takes to be in force in another gateway process."""
    from gateway.bench.changes import run
    from gateway.bench.tables import show_changes

    _measure(lambda say: run(changes, say), show_changes, json)


@app.command()
def quota(
    requests: Annotated[int, typer.Option(min=100, help="Requests of a round.")] = 50_000,
    json: JsonFlag = False,
) -> None:
    """Measure what three quotas add to a request that its leases let in."""
    from gateway.bench.quota import run, show

    _measure(lambda say: run(requests), show, json)


@app.command()
def selection(
    decisions: Annotated[int, typer.Option(min=100, help="Decisions of a round.")] = 20_000,
    json: JsonFlag = False,
) -> None:
    """Measure how many models a second are chosen among 50, on one core."""
    from gateway.bench.selection import run, show

    _measure(lambda say: run(decisions), show, json)


def _measure(
    work: Callable[[Callable[[str], None]], Awaitable[dict[str, Any]]],
    table: Callable[[dict[str, Any], Any], None],
    json: bool,
) -> None:
    import asyncio
    import sys

    import msgspec
    import uvloop
    from rich.console import Console

    from adapters.embedded import EmbeddedError
    from gateway.bench.run import BenchFailed
    from gateway.demo.process import GatewayFailed
    from gateway.telemetry.logs import configure_logs

    configure_logs("critical", "console")  # rebuilds take views over again and again, and say so
    console = Console(stderr=True)
    try:
        with console.status("preparing") as status, asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            say = status.update if console.is_terminal else console.print
            found: dict[str, Any] = runner.run(_awaited(work(lambda line: say(line))))
    except (BenchFailed, EmbeddedError, GatewayFailed) as error:
        raise fail(str(error)) from None
    if json:
        sys.stdout.write(msgspec.json.encode(found).decode() + "\n")
    else:
        table(found, Console())


async def _awaited(work: Awaitable[dict[str, Any]]) -> dict[str, Any]:
    return await work
