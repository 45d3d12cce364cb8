"""A view folded anew beside the live one, for one question: is it what the log says, or what was it in the past?"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta

import msgspec

from domain.ports.event_log import EventLog
from projections import cursor
from projections.compare import Difference, differences, digest
from projections.fold import fold_range
from projections.projection import Projection
from projections.source import Connection, Read, time_of

Progress = Callable[[int, int], None]
"""Told how far a fold is: the position reached, and the one it goes to."""
BATCH = 250_000


class Verified(msgspec.Struct, frozen=True):
    """The live view beside a fresh fold at `position`: their digests (equal means the same), how many rows differ and which."""

    projection: str
    position: int
    digest: str
    expected: str
    differing: int
    differences: list[Difference]


async def fold_fresh(
    connection: Connection,
    projection: Projection,
    upto: int,
    read: Read | None,
    *,
    skip: Sequence[int] = (),
    progress: Progress | None = None,
) -> tuple[str, datetime | None]:
    """The view as of position `upto`, in a temporary table of this connection: its name and the time of its newest event.

    Positions in `skip` are left out. `connection` is fast if it was made for `bulk`.
    """
    table = f"pg_temp.{projection.name}_fresh"
    await connection.execute(f"DROP TABLE IF EXISTS {table}")
    await connection.execute(projection.create_sql(table))
    time = await extend_fresh(connection, projection, table, 0, upto, read, skip=skip, progress=progress)
    return table, time


async def extend_fresh(
    connection: Connection,
    projection: Projection,
    table: str,
    after: int,
    upto: int,
    read: Read | None,
    *,
    skip: Sequence[int] = (),
    progress: Progress | None = None,
) -> datetime | None:
    """Fold (after, upto] into a temporary table."""
    time: datetime | None = None
    while after < upto:
        end = min([upto, after + BATCH, *(p - 1 for p in skip if p > after)])
        if end > after:
            async with connection.transaction():
                time = await fold_range(connection, projection, table, after, end, read, bulk=True)
        after = end
        if end < upto and end + 1 in skip:
            after, time = end + 1, await time_of(connection, end + 1, read)
        if progress is not None:
            progress(after, upto)
    return time


async def parked_positions(connection: Connection, projection: Projection, generation: int) -> list[int]:
    """Events that a generation went on without, in order."""
    rows = await connection.fetch(
        "SELECT position FROM projections.parked WHERE name = $1 AND generation = $2 ORDER BY position",
        projection.name, generation,
    )  # fmt: skip
    return [row["position"] for row in rows]


async def verify(
    connection: Connection, projection: Projection, read: Read | None, progress: Progress | None = None
) -> Verified:
    """Compare the live view with a fresh fold, at the live view's position; the view goes on meanwhile."""
    seen = await cursor.look(connection, projection)
    skip = await parked_positions(connection, projection, seen.generation)
    table, _ = await fold_fresh(connection, projection, seen.position, read, skip=skip, progress=progress)
    async with connection.transaction(isolation="repeatable_read"):
        now = await cursor.look(connection, projection)
        skip = await parked_positions(connection, projection, now.generation)
        await extend_fresh(connection, projection, table, seen.position, now.position, read, skip=skip)
        live = projection.table_of(now.generation)
        mine = await digest(connection, projection, live, now.recorded_at)
        truth = await digest(connection, projection, table, now.recorded_at)
        count, found = 0, list[Difference]()
        if mine != truth:
            count, found = await differences(connection, projection, live, table, now.recorded_at)
    return Verified(projection.name, now.position, mine, truth, count, found)


async def position_at(log: EventLog, time: datetime) -> int:
    """The position of the newest event recorded at or before `time`; 0 without any. `recorded_at` never decreases, so it is bisected."""
    micros = (time - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(microseconds=1)
    low, high = 0, await log.head()
    while low < high:
        middle = (low + high + 1) // 2
        [event] = await log.read(middle - 1, 1)
        low, high = (middle, high) if event.recorded_at <= micros else (low, middle - 1)
    return low
