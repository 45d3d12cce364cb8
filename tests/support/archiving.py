"""Logs with small partitions whose events are old enough to be archived."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from uuid import UUID

from adapters.archive.archiver import Archiver
from adapters.archive.segment import Segment
from adapters.postgres.migrator import migrate
from adapters.postgres.pool import connect
from domain.ports.event_log import EventLog, NewEvent, StoredEvent
from tests.conformance.conftest import new_event
from tests.support.databases import with_user

WIDTH = 10


async def migrate_narrow(owner_dsn: str, width: int = WIDTH) -> None:
    """The whole schema, with partitions of `width` positions."""
    await migrate(owner_dsn, partition_width=width)


async def fill(log: EventLog, instance: UUID, count: int, *, decisions: int = 7) -> None:
    """Append `count` events, every `decisions`-th of them a decision."""
    events = [_event(n, decisions) for n in range(count)]
    for at in range(0, count, 500):
        await log.append(instance, events[at : at + 500])


def _event(n: int, decisions: int) -> NewEvent:
    data = (
        b'{"n": %d, "text": "\\u00e4 \\\\n \\u001e \xf0\x9f\x94\xa5 \\",\\\\\\"data\\\\\\":\\"", "x": [1.50, 1e400, null]}'
        % n
    )
    if n % decisions == 0:
        return new_event(data=data, stream=f"tenant/{n % 3}", type="test.decided", expected_version=-1)
    return new_event(data=data)


async def age(owner_dsn: str, upto: int, days: int = 100) -> None:
    """Make the events up to a position `days` older, hashes and all, as only the owner can who takes the guard off.

    Where no gateway ever ran, the view `requests` passes for having folded them and found nothing open.
    """
    connection = await connect(owner_dsn, "age", role=False)
    try:
        async with connection.transaction():
            tables = [row[0] for row in await connection.fetch("SELECT name FROM emberlog.event_partitions")]
            for table in ["events", *tables]:
                await connection.execute(f"ALTER TABLE emberlog.{table} DISABLE TRIGGER append_only")
            await connection.execute(
                "UPDATE emberlog.events SET recorded_at = recorded_at - make_interval(days => $1) WHERE position <= $2",
                days,
                upto,
            )
            await connection.execute(
                "UPDATE emberlog.events SET content_hash = emberlog.content_hash(position, event_id, tenant, stream, version, type, "
                "schema_version, emberlog.micros(recorded_at), data)"
            )
            for table in ["events", *tables]:
                await connection.execute(f"ALTER TABLE emberlog.{table} ENABLE ALWAYS TRIGGER append_only")
            await connection.execute(
                "INSERT INTO projections.cursors (name, position) VALUES ('requests', $1) ON CONFLICT DO NOTHING", upto
            )
    finally:
        await connection.close()


async def archive_all(owner_dsn: str, folder: Path) -> list[Segment]:
    """Archive whatever may be."""
    archiver = await Archiver.open(owner_dsn, with_user(owner_dsn, "emberlog_gateway"), folder)
    try:
        return [await archiver.archive(p) for p in await archiver.candidates(datetime.now(UTC) - timedelta(days=4))]
    finally:
        await archiver.close()


async def read_all(log: EventLog, page: int = 1000) -> list[StoredEvent]:
    """Every event, read in pages."""
    found: list[StoredEvent] = []
    while events := await log.read(len(found), page):
        found += events
    return found
