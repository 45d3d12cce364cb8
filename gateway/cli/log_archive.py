"""`emberlog log archive`: move old events into segment files."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from gateway.cli.common import ConfigOption, Failed, JsonOption, execute, parse_duration, parse_time, show
from gateway.cli.progress import progress

if TYPE_CHECKING:
    from datetime import datetime
    from pathlib import Path

    from adapters.archive.archiver import Archiver, Partition, Step
    from gateway.cli.progress import Advance
    from gateway.settings import Settings

_NOTHING = (
    "a partition moves once every event in it is older than that, sealed and folded by `requests`, and no request in it "
    "is open; the newest event's stays, and at least 3 days"
)
_COLUMNS = ("first_position", "last_position", "events", "newest", "file")


def archive(
    before: Annotated[
        str | None, typer.Option(help="Move what is older than this time, ISO 8601. At least 3 days stay.")
    ] = None,
    older_than: Annotated[str | None, typer.Option(help="Move what is older than this, such as 90d.")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would be moved.")] = False,
    json: JsonOption = False,
    config: ConfigOption = None,
) -> None:
    """Move whole partitions of old events from the database into checked files, from where they are read on as before.

    Needs the owner's login. Stopped at any point nothing is lost: run it again.
    """
    if (before is None) == (older_than is None):
        raise typer.BadParameter("give one of --before TIME and --older-than DURATION", param_hint="--before")
    cut = parse_time(before, "--before") if older_than is None else _ago(older_than)
    assert cut is not None

    async def work(settings: Settings) -> list[dict[str, Any]]:
        from adapters.archive.archiver import Archiver, ArchiveRefused
        from gateway.manage import open_places

        folder = settings.archive_folder
        if folder is None:
            raise Failed(
                "archive_dir: with a database of your own, set EMBERLOG_ARCHIVE_DIR to a folder that every gateway sees"
            )
        async with open_places(settings) as (places, _):
            try:
                archiver = await Archiver.open(places.owner_dsn, places.app_dsn, folder)
            except ArchiveRefused as error:
                raise Failed(str(error)) from None
            try:
                found = await archiver.candidates(cut)
                if dry_run:
                    return [_row(partition, None) for partition in found]
                with progress("archiving", quiet=json) as advance:
                    return await _move(archiver, found, folder, advance)
            finally:
                await archiver.close()

    moved = execute(config, work)
    if not moved and not json:
        typer.echo("nothing to move: " + _NOTHING)
        return
    show({"segments": moved, "dry_run": dry_run}, json, _COLUMNS, ([row[name] for name in _COLUMNS] for row in moved))


async def _move(archiver: Archiver, found: list[Partition], folder: Path, advance: Advance) -> list[dict[str, Any]]:
    from adapters.archive.archiver import ArchiveRefused

    total = sum(partition.events for partition in found)
    moved: list[dict[str, Any]] = []
    done = 0

    async def on_step(partition: Partition, step: Step, position: int) -> None:
        advance(done + position - partition.first_position + 1, total)

    try:
        for partition in found:
            segment = await archiver.archive(partition, on_step)
            moved.append(_row(partition, segment.file))
            done += partition.events
    except ArchiveRefused as error:
        raise Failed(f"{len(moved)} segments were made, then: {error}") from None
    except OSError as error:
        raise Failed(
            f"{len(moved)} segments were made, then writing to {folder} failed: {error.strerror}; nothing was lost, run it again once that is mended"
        ) from None
    return moved


def _row(partition: Partition, file: str | None) -> dict[str, Any]:
    return {
        "first_position": partition.first_position,
        "last_position": partition.last_position,
        "events": partition.events,
        "newest": partition.recorded_at.isoformat(),
        "file": file,
    }


def _ago(duration: str) -> datetime:
    from datetime import UTC, datetime

    return datetime.now(UTC) - parse_duration(duration, "--older-than")
