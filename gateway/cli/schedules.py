"""`emberlog schedules`: what the installation does from time to time, how the last run went, and a run now."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from gateway.cli.common import ConfigOption, JsonOption, encode, fields, show, tell, with_installation

if TYPE_CHECKING:
    from gateway.maintenance.schedules import ScheduleDocument, Schedules
    from gateway.manage import Installation

app = typer.Typer(help="Scheduled work: when each task is due, how its last run went, a run now.", no_args_is_help=True)

NameArgument = Annotated[str, typer.Argument(metavar="NAME", help="The schedule's name, as `schedules list` shows it.")]


@app.command("list")
def list_(json: JsonOption = False, config: ConfigOption = None) -> None:
    """List every schedule."""

    async def work(installation: Installation) -> list[ScheduleDocument]:
        return await _schedules(installation).all()

    found = with_installation(config, work)
    rows = [
        [s.name, s.state, _period(s.period_seconds), s.next_run_at, s.last_run and s.last_run.ended_at, _outcome(s)]
        for s in found
    ]
    show(found, json, ["schedule", "state", "every", "next run", "last run", "outcome"], rows)


@app.command("show")
def show_(name: NameArgument, json: JsonOption = False, config: ConfigOption = None) -> None:
    """Show one schedule: who runs it, when it is due, what the last run did."""
    import msgspec

    async def work(installation: Installation) -> ScheduleDocument:
        return await _schedules(installation).one(name)

    found = with_installation(config, work)
    tell(found, json, *fields(msgspec.to_builtins(found)))


@app.command()
def run(name: NameArgument, json: JsonOption = False, config: ConfigOption = None) -> None:
    """Run it now: whichever gateway looks first takes it, within some seconds. What is being run is not run again."""

    async def work(installation: Installation) -> tuple[ScheduleDocument, bool]:
        return await _schedules(installation).run(name), installation.temporary

    found, alone = with_installation(config, work)
    told = f"{found.name} is being run" if found.state == "running" else f"{found.name} is due: a gateway takes it"
    tell(found, json, told + (" when one is started: none runs now" if alone else ""))


def _schedules(installation: Installation) -> Schedules:
    from gateway.maintenance.schedules import Schedules

    return Schedules(installation.log.pool)


def _period(seconds: int | None) -> str:
    if seconds is None:
        return "on demand"
    return f"{seconds // 3600} h" if seconds % 3600 == 0 else f"{seconds} s"


def _outcome(schedule: ScheduleDocument) -> str:
    last = schedule.last_run
    if last is None:
        return ""
    return f"failed: {last.error}" if last.error is not None else encode(last.result or {})
