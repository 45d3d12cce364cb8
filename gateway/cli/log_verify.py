"""`emberlog log verify`: walk the whole log and name the first thing that was changed."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated, Any

import typer

from gateway.cli.common import ConfigOption, Failed, JsonOption, tell, with_installation

if TYPE_CHECKING:
    from domain.verification import Verdict
    from gateway.manage import Installation

_LINE_SECONDS = 5.0


def verify(
    start: Annotated[
        int, typer.Option("--from", min=1, help="Look at the events from this position on; at the seals always.")
    ] = 1,
    seal: Annotated[
        str | None, typer.Option(help="The hash of a seal (64 hex digits) that was noted elsewhere and must occur.")
    ] = None,
    json: JsonOption = False,
    config: ConfigOption = None,
) -> None:
    """Check every event against its content hash and its seal, and the chain of seals; archived events too.

    Names the first event or seal at fault. Exit code 0 means intact, 1 that something was changed.
    """
    try:
        noted = None if seal is None else bytes.fromhex(seal)
    except ValueError:
        noted = b""
    if noted is not None and len(noted) != 32:
        raise typer.BadParameter("expected the 64 hex digits that `emberlog log head` shows", param_hint="--seal")

    async def work(installation: Installation) -> Verdict:
        from adapters.postgres.verify import verify

        head = await installation.log.head()
        if start > max(head, 1):
            raise Failed(f"position {start} is past the log's newest event, at {head}")
        with _progress(start, quiet=json) as progress:
            return await verify(installation.log.pool, installation.log, start=start, noted=noted, progress=progress)

    verdict = with_installation(config, work)
    finding, newest = verdict.finding, verdict.newest_seal
    found: dict[str, Any] = {
        "intact": verdict.intact,
        "finding": finding,
        "from": start,
        "head": verdict.head,
        "events": verdict.events,
        "seals": verdict.seals,
        "unsealed": verdict.unsealed,
        "newest_seal": newest and newest.document(),
    }
    if finding is not None:
        tell(found, json, f"NOT INTACT: {finding.message}")
        raise typer.Exit(1)
    counted = f"intact: {verdict.events} events up to position {verdict.head}, {verdict.seals} seals, {verdict.unsealed} events not sealed yet"
    tell(found, json, counted, *([f"newest seal: {newest.number} {newest.hash.hex()}"] if newest else []))


@contextmanager
def _progress(start: int, *, quiet: bool) -> Iterator[Callable[[int, int], None]]:
    """How far it is, on standard error: a bar on a terminal, else a line now and then."""
    if quiet:
        yield lambda position, head: None
        return
    if not sys.stderr.isatty():
        yield _lines()
        return
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

    columns = (
        TextColumn("verifying"),
        BarColumn(),
        TaskProgressColumn(),
        TextColumn("{task.fields[rate]} events/s"),
        TimeRemainingColumn(),
    )
    began = time.monotonic()
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("", total=None, rate="?")

        def advance(position: int, head: int) -> None:
            rate = f"{(position - start + 1) / max(time.monotonic() - began, 0.001):,.0f}"
            bar.update(task, total=head - start + 1, completed=position - start + 1, rate=rate)

        yield advance


def _lines() -> Callable[[int, int], None]:
    last = time.monotonic()

    def advance(position: int, head: int) -> None:
        nonlocal last
        if (now := time.monotonic()) - last >= _LINE_SECONDS:
            last = now
            typer.echo(f"verified up to position {position} of {head}", err=True)

    return advance
