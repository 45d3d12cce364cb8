"""`emberlog log export` and `emberlog log import`: a log as a file, and back."""

from __future__ import annotations

import sys
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, BinaryIO

import typer

from gateway.cli.common import ConfigOption, Failed, JsonOption, encode, execute, tell, with_installation
from gateway.cli.progress import progress

if TYPE_CHECKING:
    from collections.abc import Iterator

    from adapters.archive.export import Trailer
    from adapters.archive.load import Imported
    from gateway.manage import Installation
    from gateway.settings import Settings


def export(
    file: Annotated[str, typer.Argument(metavar="FILE", help="Where to write; - for standard output.")],
    start: Annotated[int, typer.Option("--from", metavar="POSITION", min=1, help="From this position on.")] = 1,
    to: Annotated[
        int | None, typer.Option("--to", metavar="POSITION", min=1, help="Up to this position; else to the head.")
    ] = None,
    with_keys: Annotated[
        bool, typer.Option("--with-keys", help="The tenants' keys too, wrapped by the installation's key.")
    ] = False,
    json: JsonOption = False,
    config: ConfigOption = None,
) -> None:
    """Write events as JSON, one a line, archived or not, with a header and a trailer that tells whether all is there.

    Of a tenant that was shredded the lines say so.
    """

    async def work(installation: Installation) -> Trailer:
        from adapters.archive.export import export_log

        head = await installation.log.head()
        last = head if to is None else to
        if last > head or (start > last and not start == last + 1 == 1):
            raise Failed(f"--from {start} --to {last}: the log's positions are 1 to {head}", code=2)
        with _target(file) as out, progress("exporting", quiet=json) as advance:
            return await export_log(
                installation.log, out, start, last, with_keys=with_keys,
                on_progress=lambda done: advance(done, last - start + 1),
            )  # fmt: skip

    trailer = with_installation(config, work)
    line = f"{trailer.events} events, SHA-256 {trailer.sha256}"
    if file == "-":  # standard output is the export
        typer.echo(encode(trailer) if json else line, err=True)
    else:
        tell(trailer, json, line)


@contextmanager
def _target(file: str) -> Iterator[BinaryIO]:
    """Where to write to. A file has its name only once it is whole; a device or a pipe is written to as it is."""
    import os

    if file == "-":
        yield sys.stdout.buffer
        return
    path = Path(file)
    special = path.exists() and not path.is_file()
    if not special:
        path = path.resolve()  # what a link leads to is replaced, not the link
    # Of this process alone: two exports to one file must not write into each other.
    part = path if special else path.with_name(f"{path.name}.{os.getpid()}.part")
    try:
        with part.open("wb") as out:
            yield out
            out.flush()
            if not special:
                os.fsync(out.fileno())
        if not special:
            part.replace(path)
    except OSError as error:
        raise Failed(f"{file} cannot be written: {error.strerror or type(error).__name__}") from None
    finally:
        if not special:
            part.unlink(missing_ok=True)


def import_(
    file: Annotated[
        str, typer.Argument(metavar="FILE", help="What `emberlog log export` wrote; - for standard input.")
    ],
    json: JsonOption = False,
    config: ConfigOption = None,
) -> None:
    """Make an empty log the one of an export: positions, ids, times and hashes stay, each is checked; all of it or nothing.

    Needs the owner's login and no running gateway. Cursors of the source are refused; views fold from the start by themselves.
    """

    async def work(settings: Settings) -> Imported:
        from adapters.archive.import_lines import ImportRefused
        from adapters.archive.load import import_log
        from gateway.manage import open_places

        async with open_places(settings) as (places, _):
            with _source(file) as source, progress("importing", quiet=json) as advance:
                try:
                    return await import_log(places.owner_dsn, source, advance)
                except ImportRefused as error:
                    raise Failed(f"{file}: {error}") from None

    done = execute(config, work)
    tell(
        done,
        json,
        f"{done.events} events and {done.keys} tenants' keys imported",
        f"installation {done.installation}, incarnation {done.incarnation}: cursors of the source are refused",
    )


@contextmanager
def _source(file: str) -> Iterator[BinaryIO]:
    if file == "-":
        yield sys.stdin.buffer
        return
    try:
        source = Path(file).open("rb")  # noqa: SIM115  # closed below; what reading it raises is another matter
    except OSError as error:
        raise Failed(f"{file} cannot be read: {error.strerror or type(error).__name__}") from None
    with source:
        yield source
