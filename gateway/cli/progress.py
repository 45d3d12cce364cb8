"""How far long work is, on standard error: a bar with rate and time left on a terminal, a line now and then elsewhere."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import typer

Advance = Callable[[int, int], None]
"""Told how much is done, and of how much."""
LINE_SECONDS = 5.0


@contextmanager
def progress(doing: str, *, quiet: bool = False, unit: str = "events") -> Iterator[Advance]:
    """Show how far the work named `doing` is; `quiet` shows nothing."""
    if quiet:
        yield lambda done, total: None
    elif sys.stderr.isatty():
        with _bar(doing, unit) as advance:
            yield advance
    else:
        yield _lines(doing, unit)


@contextmanager
def _bar(doing: str, unit: str) -> Iterator[Advance]:
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

    columns = (
        TextColumn(doing),
        BarColumn(),
        TaskProgressColumn(),
        TextColumn("{task.fields[rate]} " + unit + "/s"),
        TimeRemainingColumn(),
    )
    meter = _Meter()
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("", total=None, rate="?")
        yield lambda done, total: bar.update(task, completed=done, total=total, rate=f"{meter.rate(done):,.0f}")


def _lines(doing: str, unit: str) -> Advance:
    meter = _Meter()
    said = time.monotonic()

    def advance(done: int, total: int) -> None:
        nonlocal said
        rate = meter.rate(done)
        if time.monotonic() - said >= LINE_SECONDS:
            said = time.monotonic()
            left = f", about {(total - done) / rate:,.0f} s left" if rate else ""
            typer.echo(f"{doing}: {done:,} of {total:,} {unit}, {rate:,.0f}/s{left}", err=True)

    return advance


class _Meter:
    """What was done a second since the first word of it: work taken up half way does not count as fast."""

    def __init__(self) -> None:
        self._first: tuple[float, int] | None = None

    def rate(self, done: int) -> float:
        now = time.monotonic()
        if self._first is None:
            self._first = (now, done)
        since, start = self._first
        return (done - start) / (now - since) if now > since else 0.0
