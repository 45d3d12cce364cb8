"""`emberlog projections`: the views of the log, how far they are, and rebuilding, checking and mending them."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Annotated, Any

import typer

from gateway.cli.common import ConfigOption, JsonOption, parse_place, show, tell, with_installation
from gateway.cli.progress import progress

if TYPE_CHECKING:
    from domain.events import EventData
    from gateway.manage import Installation
    from projections.projection import Projection
    from projections.source import Connection

app = typer.Typer(
    help="Views of the log: where they stand; rebuild, verify, roll back; parked events.", no_args_is_help=True
)
parked_app = typer.Typer(help="Events that a view went on without.", no_args_is_help=True)
app.add_typer(parked_app, name="parked")

NameArgument = Annotated[str, typer.Argument(metavar="NAME", help="A projection, as `projections list` shows it.")]
AllOption = Annotated[bool, typer.Option("--all", help="Every projection, one after the other.")]
OptionalName = Annotated[str | None, typer.Argument(metavar="NAME", help="A projection, or --all.")]
PositionArgument = Annotated[int, typer.Argument(metavar="POSITION", min=1, help="The parked event's position.")]
_ROWS = 1_000


@app.command("list")
def list_(json: JsonOption = False, config: ConfigOption = None) -> None:
    """Where each view stands: live, lagging (moving, but behind), stalled (nobody moves it) or halted (an event cannot be folded)."""

    async def work(installation: Installation) -> list[dict[str, Any]]:
        import msgspec

        from gateway.projection_document import projection_document
        from projections.cursor import look
        from projections.runner import ALL

        async with _session(installation, "projections") as connection:
            return [msgspec.to_builtins(projection_document(p.name, await look(connection, p))) for p in ALL]

    found = with_installation(config, work)
    columns = ("id", "state", "generation", "position", "behind", "lag_seconds", "parked", "error")
    show(found, json, columns, ([row[name] for name in columns] for row in found))


@app.command()
def rebuild(
    name: OptionalName = None,
    every: AllOption = False,
    accept_differences: Annotated[
        bool, typer.Option(help="Read the new generation even where it differs from the one before.")
    ] = False,
    json: JsonOption = False,
    config: ConfigOption = None,
) -> None:
    """Fold a view anew from the whole log beside the live one, prove both equal at one position, and read the new one from then on.

    Where they differ the live one stays, the differing rows are named, and the exit code is 1. A run that was killed is gone on with.
    """
    wanted = _chosen(name, every)

    async def work(installation: Installation) -> list[dict[str, Any]]:
        import msgspec

        from domain.events import ProjectionRebuilt
        from projections.rebuild import Rebuild

        results = []
        for projection in wanted:
            with progress(f"rebuilding {projection.name}", quiet=json) as advance:
                job = Rebuild(installation.places.app_dsn, projection, installation.log.read, advance)
                done = await job.run(accept_differences=accept_differences)
            if done.flipped:
                fact = ProjectionRebuilt(
                    projection=done.projection, generation=done.generation, previous=done.previous, up_to=done.position,
                    digest=done.digest, equal=done.digest == done.before, at=_now(),
                )  # fmt: skip
                await _record(installation, fact, f"{done.projection}/{done.generation}")
            results.append(msgspec.to_builtins(done))
        return results

    results = with_installation(config, work)
    lines = []
    for r in results:
        rate = r["events"] / max(r["seconds"], 0.001)
        state = (
            f"generation {r['generation']} is read now, generation {r['previous']} is kept for rollback"
            if r["flipped"]
            else f"generation {r['previous']} is still read: look at the rows, then repeat with --accept-differences"
        )
        same = "equal" if r["digest"] == r["before"] else f"{r['differing']} rows differ"
        lines += [
            f"{r['projection']}: {r['events']:,} events in {r['seconds']:.1f} s ({rate:,.0f}/s), {same} at position {r['position']}; {state}"
        ]
        lines += [_difference(d) for d in r["differences"]]
    tell(results, json, *lines)
    if not all(r["flipped"] for r in results):
        raise typer.Exit(1)


@app.command()
def rollback(name: NameArgument, json: JsonOption = False, config: ConfigOption = None) -> None:
    """Read the generation before the last rebuild again, caught up with the log."""
    [projection] = _chosen(name, False)

    async def work(installation: Installation) -> dict[str, Any]:
        from domain.events import ProjectionRolledBack
        from projections.rebuild import Rebuild

        with progress(f"catching up {projection.name}", quiet=json) as advance:
            job = Rebuild(installation.places.app_dsn, projection, installation.log.read, advance)
            generation, previous = await job.roll_back()
        fact = ProjectionRolledBack(projection=projection.name, generation=generation, previous=previous, at=_now())
        await _record(installation, fact, f"{projection.name}/{generation}/{fact.at}")
        return {"projection": projection.name, "generation": generation, "previous": previous}

    done = with_installation(config, work)
    tell(
        done, json, f"{name}: generation {done['generation']} is read again, generation {done['previous']} is kept"
    )  # fmt: skip


@app.command()
def verify(
    name: OptionalName = None, every: AllOption = False, json: JsonOption = False, config: ConfigOption = None
) -> None:
    """Compare a live view with a fresh fold of the log and name the rows that differ. Exit code 1 if any does."""
    wanted = _chosen(name, every)

    async def work(installation: Installation) -> list[dict[str, Any]]:
        import msgspec

        from projections import fresh

        results = []
        for projection in wanted:
            with progress(f"verifying {projection.name}", quiet=json) as advance:
                async with _session(installation, f"verify {projection.name}", bulk=True) as connection:
                    found = await fresh.verify(connection, projection, installation.log.read, advance)
            results.append(msgspec.to_builtins(found))
        return results

    results = with_installation(config, work)
    lines = []
    for r in results:
        good = r["digest"] == r["expected"]
        said = "equal to a fresh fold" if good else f"{r['differing']} rows differ from a fresh fold"
        lines.append(f"{r['projection']}: {said} at position {r['position']} (digest {r['digest']})")
        lines += [_difference(d) for d in r["differences"]]
    tell(results, json, *lines)
    if any(r["digest"] != r["expected"] for r in results):
        raise typer.Exit(1)


@app.command("show")
def show_(
    name: NameArgument,
    as_of: Annotated[
        str | None, typer.Option(help="A position, or a time (ISO 8601): the view as it was then, folded anew.")
    ] = None,
    limit: Annotated[int, typer.Option(min=0, help="How many rows to print, in the order of their key.")] = 100,
    json: JsonOption = False,
    config: ConfigOption = None,
) -> None:
    """Print a view's digest and rows: now, or as of any position or time of the log."""
    [projection] = _chosen(name, False)
    place = None if as_of is None else parse_place(as_of, "--as-of")

    async def work(installation: Installation) -> dict[str, Any]:
        from projections import cursor

        with progress(f"folding {projection.name}", quiet=json) as advance:
            async with _session(installation, f"show {projection.name}", bulk=True) as connection:
                if place is None:
                    async with connection.transaction(isolation="repeatable_read"):
                        seen = await cursor.look(connection, projection)
                        table, position, at = projection.table_of(seen.generation), seen.position, seen.recorded_at
                        return await _document(connection, table, position, at)
                from gateway.cli.past import fold_past

                past = await fold_past(installation, connection, projection, place, advance)
                return await _document(connection, past.table, past.position, past.time)

    async def _document(connection: Connection, table: str, position: int, at: Any) -> dict[str, Any]:
        from projections.compare import digest, first_rows
        from projections.usage.query import utc_text

        return {
            "projection": projection.name,
            "position": position,
            "time": utc_text(at),
            "digest": await digest(connection, projection, table, at),
            "rows": await first_rows(connection, projection, table, at, limit),
        }

    found = with_installation(config, work)
    if json:
        tell(found, True)
        return
    typer.echo(
        f"{name} at position {found['position']} ({found['time'] or 'before the first event'}), digest {found['digest']}"
    )
    if found["rows"]:
        show(None, False, list(found["rows"][0]), (row.values() for row in found["rows"]))


@app.command()
def park(name: NameArgument, json: JsonOption = False, config: ConfigOption = None) -> None:
    """Let a halted view go on without the event it halts before; what it counts is short of that event until it is retried."""
    [projection] = _chosen(name, False)

    async def work(installation: Installation) -> int:
        from domain.events import ProjectionParked
        from projections import parking

        async with _session(installation, "park") as connection:
            parked = await parking.park(connection, projection)
        fact = ProjectionParked(
            projection=projection.name, generation=parked.generation, failed_position=parked.position, error=parked.error
        )  # fmt: skip
        await _record(installation, fact, f"{projection.name}/{parked.generation}/{parked.position}")
        return parked.position

    position = with_installation(config, work)
    tell({"projection": name, "position": position}, json, f"{name}: goes on without the event at position {position}")


@parked_app.command("list")
def list_parked(
    name: Annotated[str | None, typer.Argument(metavar="[NAME]")] = None,
    json: JsonOption = False,
    config: ConfigOption = None,
) -> None:
    """The events that live views lack, the discarded ones too."""
    if name is not None:
        _chosen(name, False)

    async def work(installation: Installation) -> list[dict[str, Any]]:
        import msgspec

        from projections import parking

        async with _session(installation, "parked") as connection:
            found = await parking.list_parked(connection, name)
        return [{"id": f"{p.projection}/{p.position}", **msgspec.to_builtins(p)} for p in found]

    found = with_installation(config, work)
    columns = ("projection", "position", "parked_at", "discarded_at", "error")
    show(found, json, columns, ([row[column] for column in columns] for row in found))


@parked_app.command()
def retry(
    name: NameArgument, position: PositionArgument, json: JsonOption = False, config: ConfigOption = None
) -> None:
    """Fold a parked event into the live view, now that this release can."""
    _unpark(name, position, "retried", json, config)


@parked_app.command()
def discard(
    name: NameArgument, position: PositionArgument, json: JsonOption = False, config: ConfigOption = None
) -> None:
    """Give a parked event up: the view stays without it."""
    _unpark(name, position, "discarded", json, config)


def _unpark(name: str, position: int, action: str, json: bool, config: Any) -> None:
    [projection] = _chosen(name, False)

    async def work(installation: Installation) -> None:
        from domain.events import ProjectionUnparked
        from projections import parking

        async with _session(installation, "parked") as connection:
            if action == "retried":
                generation = await parking.retry(connection, projection, position, installation.log.read)
            else:
                generation = await parking.discard(connection, projection, position)
        fact = ProjectionUnparked(
            projection=name, generation=generation, failed_position=position, action=action, at=_now()
        )
        await _record(installation, fact, f"{name}/{generation}/{position}/{action}")

    with_installation(config, work)
    tell(
        {"projection": name, "position": position, "action": action},
        json,
        f"{name}: {action} the event at position {position}",
    )


def _chosen(name: str | None, every: bool) -> list[Projection]:
    """The projections meant. Wrong usage unless it is one that exists, or --all."""
    from projections.runner import ALL

    if every and name is None:
        return list(ALL)
    found = [p for p in ALL if p.name == name]
    if every or not found:
        known = ", ".join(p.name for p in ALL)
        raise typer.BadParameter(f"expected one of {known}" + ("" if name else ", or --all"), param_hint="NAME")
    return found


@asynccontextmanager
async def _session(installation: Installation, name: str, *, bulk: bool = False) -> AsyncIterator[Connection]:
    from projections.connect import connect

    connection = await connect(installation.places.app_dsn, name, bulk=bulk)
    try:
        yield connection
    finally:
        connection.terminate()


async def _record(installation: Installation, data: EventData, identity: str) -> None:
    """What was done, as an event of the log."""
    from domain.facts import system_fact
    from gateway.decisions import check_appended

    event = system_fact(data, identity, _now())
    async with installation.writer() as instance:
        [appended] = await installation.log.append(instance, [event])
    check_appended(appended, event.stream)


def _now() -> int:
    return time.time_ns() // 1000


def _difference(found: dict[str, Any]) -> str:
    key = ", ".join(f"{column}={value}" for column, value in found["key"].items())
    if found["kind"] == "changed":
        what = "; ".join(
            f"{column} is {mine}, the log says {truth}" for column, (mine, truth) in found["columns"].items()
        )
    else:
        what = "missing from the view" if found["kind"] == "missing" else "not in the log"
    return f"  {key}: {what}"
