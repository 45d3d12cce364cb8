"""What a fold reads: the log's table, or events brought from elsewhere where the table does not have them in today's shape."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, TypeAlias

import asyncpg

from domain.ports.event_log import LogDamaged, StoredEvent
from domain.upcasters import upcast
from projections.projection import GapInLog, Projection
from projections.statements import statement

Connection: TypeAlias = "asyncpg.Connection[asyncpg.Record]"
Read = Callable[[int, int], Awaitable[Sequence[StoredEvent]]]
"""`EventLog.read`: up to so many events behind a position, archived ones too."""

STAGED = "pg_temp.staged_events"
_PAGE = 2_000
"""Events decoded between two turns of the loop, which in a gateway has requests to serve: about ten milliseconds."""
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_STAGED = statement("projections.sql", "staged")
_COLUMNS = ("position", "recorded_at", "tenant", "type", "data")


async def stage(connection: Connection, projection: Projection, read: Read, after: int, upto: int) -> datetime:
    """Bring the events in (after, upto] that the projection reads into `STAGED`, upcast; returns the time of the last.

    Within a transaction, whose end empties the table. Raises `GapInLog`, `domain.upcasters.UnknownSchema`, and what `read` raises.
    """
    await connection.execute(_STAGED)
    await connection.execute(f"TRUNCATE {STAGED}")
    types = frozenset(projection.types)
    position, recorded_at = after, _EPOCH
    while position < upto:
        try:
            page = await read(position, min(_PAGE, upto - position))
        except LogDamaged as error:
            raise GapInLog(str(error)) from error
        if not page:
            raise GapInLog(f"the log holds no event behind position {position}, expected some up to {upto}")
        records: list[tuple[Any, ...]] = [
            (e.position, _time(e.recorded_at), e.tenant, e.type, upcast(e.type, e.schema_version, e.data).decode())
            for e in page
            if e.type in types
        ]
        if records:
            await connection.copy_records_to_table(
                "staged_events", schema_name="pg_temp", columns=_COLUMNS, records=records
            )
        position, recorded_at = page[-1].position, _time(page[-1].recorded_at)
    return recorded_at


async def time_of(connection: Connection, position: int, read: Read | None) -> datetime | None:
    """When the event at `position` was recorded; None where nobody can tell. Raises what `read` raises."""
    time = await connection.fetchval("SELECT recorded_at FROM emberlog.events WHERE position = $1", position)
    if time is None and read is not None and (page := await read(position - 1, 1)):
        return _time(page[0].recorded_at)
    assert time is None or isinstance(time, datetime)
    return time


def _time(micros: int) -> datetime:
    return _EPOCH + timedelta(microseconds=micros)
