"""Events that a view went on without: listed, folded after all, or given up; and letting a halted view go on."""

from __future__ import annotations

from datetime import datetime

import asyncpg
import msgspec

from domain.upcasters import UnknownSchema
from projections.fold import fold_range
from projections.projection import GapInLog, Projection, Refused
from projections.source import Connection, Read
from projections.statements import statement
from projections.worker import poison, reason

_PARKED, _UNPARK, _HOLD_LIVE, _SKIP, _PARK = (
    statement("projections.sql", name) for name in ("parked", "unpark", "hold_live", "skip", "park")
)


class Parked(msgspec.Struct, frozen=True):
    """An event that the live generation of a view lacks. `error` says why; `discarded_at` is set once it was given up."""

    projection: str
    generation: int
    position: int
    error: str
    parked_at: datetime
    discarded_at: datetime | None = None


async def list_parked(connection: Connection, name: str | None = None) -> list[Parked]:
    """What the live generations lack, in the order of the log."""
    return [msgspec.convert(dict(row), Parked) for row in await connection.fetch(_PARKED, name)]


class Skipped(msgspec.Struct, frozen=True):
    """An event that a view goes on without from now on."""

    generation: int
    position: int
    error: str


async def park(connection: Connection, projection: Projection) -> Skipped:
    """Let a halted view go on without the event it halts before. Raises `Refused` if it is not halted."""
    async with connection.transaction():
        generation, position = await _hold_live(connection, projection)
        row = await connection.fetchrow(_SKIP, projection.name, generation, position)
        if row is None:
            raise Refused(f"{projection.name!r} is not halted: there is no event to park")
        await connection.execute(_PARK, projection.name, generation, position + 1, row["error"], None)
    return Skipped(generation, position + 1, row["error"])


async def retry(connection: Connection, projection: Projection, position: int, read: Read | None = None) -> int:
    """Fold a parked event into the live view; returns its generation. Raises `Refused` where it still cannot be folded, or is not parked."""
    try:
        async with connection.transaction():
            generation, _ = await _hold_live(connection, projection)
            if await connection.fetchval(_UNPARK, projection.name, generation, position) is None:
                raise _not_parked(projection, position)
            table = projection.table_of(generation)
            await fold_range(connection, projection, table, position - 1, position, read)
    except (GapInLog, UnknownSchema, asyncpg.PostgresError) as error:
        if isinstance(error, asyncpg.PostgresError) and not poison(error):
            raise
        raise Refused(
            f"the event at position {position} still cannot be folded: {reason(error)}. It stays parked"
        ) from None
    return generation


async def discard(connection: Connection, projection: Projection, position: int) -> int:
    """Give a parked event up: the view stays without it, and so do rebuilds that cannot fold it. Returns the view's generation.

    Raises `Refused` if it is not parked.
    """
    async with connection.transaction():
        generation, _ = await _hold_live(connection, projection)
        done = await connection.execute(
            "UPDATE projections.parked SET discarded_at = clock_timestamp() "
            "WHERE name = $1 AND generation = $2 AND position = $3 AND discarded_at IS NULL",
            projection.name, generation, position,
        )  # fmt: skip
        if done == "UPDATE 0":
            raise _not_parked(projection, position)
    return generation


async def _hold_live(connection: Connection, projection: Projection) -> tuple[int, int]:
    """The live generation and where it stands, both kept so until the transaction ends."""
    row = await connection.fetchrow(_HOLD_LIVE, projection.name)
    if row is None:
        raise Refused(
            f"{projection.name!r} is being replaced by another generation, or was never folded: run this again"
        )
    return row["generation"], row["position"]


def _not_parked(projection: Projection, position: int) -> Refused:
    return Refused(
        f"no event at position {position} waits for {projection.name!r} (one that was discarded is folded by a rebuild only): "
        "see `emberlog projections parked list`"
    )
