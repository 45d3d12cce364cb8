"""Generations of a view: a table each, of which one is read under the view's name. Making, swapping and dropping them."""

from __future__ import annotations

from datetime import timedelta
from uuid import UUID

import asyncpg
import msgspec

from projections import cursor
from projections.fold import fold_range
from projections.projection import Projection, Refused
from projections.source import Connection, Read
from projections.statements import statement

_ACQUIRE, _BUILDING, _BEGIN, _RETIRED, _SET_STATE, _HOLD_LIVE = (
    statement("projections.sql", name) for name in ("acquire", "building", "begin", "retired", "set_state", "hold_live")
)
LEASE = timedelta(seconds=30)
"""Of whoever builds a generation."""


class Building(msgspec.Struct, frozen=True):
    """A generation that this process builds, as far as it is folded."""

    generation: int
    position: int
    fence: int


async def take_building(connection: Connection, projection: Projection, owner: UUID) -> tuple[Building, bool]:
    """The generation to build, `owner`'s from now on, and whether it was begun before (by whoever crashed over it).

    One that other statements began, or that a rollback did, is dropped and begun anew. Raises `Refused` while another process is at it.
    """
    found = await connection.fetchrow(_BUILDING, projection.name)
    if found is not None and found["free"] and found["fold"] != projection.fold:
        await drop(connection, projection, found["generation"])
        found = None
    if found is not None:
        return await _take(connection, projection, found["generation"], owner), True
    try:
        async with connection.transaction():
            generation = await connection.fetchval(_BEGIN, projection.name, projection.fold)
            await connection.execute(projection.create_sql(projection.table_of(generation)))
            return await _take(connection, projection, generation, owner), False
    except asyncpg.UniqueViolationError:
        raise Refused(_taken(projection)) from None


async def take_retired(connection: Connection, projection: Projection, owner: UUID) -> Building:
    """The generation before the live one, to be caught up and read again. Raises `Refused` where there is none."""
    building = await connection.fetchrow(_BUILDING, projection.name)
    if building is not None and building["fold"] == _rollback(projection):
        return await _take(connection, projection, building["generation"], owner)  # one that a crash left
    found = await connection.fetchrow(_RETIRED, projection.name)
    if found is None:
        raise Refused(f"{projection.name!r} has no generation to go back to: only a rebuild leaves one, for a week")
    generation = found["generation"]
    if found["fold"] not in (None, projection.fold):
        raise Refused(
            f"generation {generation} of {projection.name!r} was folded by another release's statements: roll back with that release"
        )
    try:
        async with connection.transaction():
            await connection.execute(_SET_STATE, projection.name, generation, "building", _rollback(projection))
            return await _take(connection, projection, generation, owner)
    except asyncpg.UniqueViolationError:
        raise Refused(_taken(projection)) from None


async def _take(connection: Connection, projection: Projection, generation: int, owner: UUID) -> Building:
    found = await connection.fetchrow(_ACQUIRE, projection.name, generation, owner, LEASE)
    if found is None:
        raise Refused(_taken(projection))
    return Building(generation, found["position"], found["fence"])


def _rollback(projection: Projection) -> bytes:
    """Marks a generation that a rollback is catching up: it was not folded from the start of the log, so no rebuild may go on with it."""
    return b"rollback" + projection.fold


def _taken(projection: Projection) -> str:
    return (
        f"a rebuild or rollback of {projection.name!r} is under way in another process: wait for it. If that process was killed, run this "
        f"again in {LEASE.total_seconds():.0f} s"
    )


async def flip(connection: Connection, projection: Projection, live: int, building: Building, read: Read | None) -> int:
    """Read generation `building` from now on, folded up to where `live` stands; returns that position.

    One transaction: readers see the one or the other, and the live generation's owner waits for it, then finds itself ousted.
    `live` is kept as retired, generations retired earlier are dropped. Raises `Refused` if the view has another generation meanwhile.
    """
    name = projection.name
    async with connection.transaction():
        await connection.execute("SET LOCAL lock_timeout = '500ms'")  # whoever reads the view meanwhile waits behind us
        position = await connection.fetchval(_HOLD_LIVE, name, live)
        if position is None:
            raise Refused(f"generation {live} of {name!r} is not the live one any more: look at it and decide again")
        await cursor.hold(connection, projection, building.generation, building.fence, building.position)
        if position < building.position:
            raise Refused(f"generation {building.generation} of {name!r} is ahead of the live one: try again")
        if position > building.position:
            table = projection.table_of(building.generation)
            recorded_at = await fold_range(connection, projection, table, building.position, position, read)
            await cursor.advance(
                connection, projection, building.generation, building.fence, building.position, position, recorded_at, LEASE
            )  # fmt: skip
        old = await connection.fetch(
            "SELECT generation FROM projections.cursors WHERE name = $1 AND state = 'retired'", name
        )
        for row in old:
            await drop(connection, projection, row["generation"])
        await connection.execute(_SET_STATE, name, live, "retired", projection.fold)
        await connection.execute(_SET_STATE, name, building.generation, "live", projection.fold)
        # Dropped and made again, for a view cannot change its columns, and a later release's table may have others.
        await connection.execute(f"DROP VIEW projections.{name}")
        await connection.execute(f"CREATE VIEW projections.{name} AS TABLE {projection.table_of(building.generation)}")
    return int(position)


async def drop(connection: Connection, projection: Projection, generation: int) -> None:
    """Drop a generation that is not read: its table, its cursor and what it parked."""
    async with connection.transaction():
        await connection.execute(f"DROP TABLE IF EXISTS {projection.table_of(generation)}")
        await connection.execute(
            "DELETE FROM projections.parked WHERE name = $1 AND generation = $2", projection.name, generation
        )
        await connection.execute(
            "DELETE FROM projections.cursors WHERE name = $1 AND generation = $2 AND state <> 'live'",
            projection.name, generation,
        )  # fmt: skip


async def drop_retired(connection: Connection, projection: Projection, older_than: timedelta) -> int:
    """Drop the generations that were retired longer ago; returns how many."""
    rows = await connection.fetch(
        "SELECT generation FROM projections.cursors WHERE name = $1 AND state = 'retired' AND state_since < clock_timestamp() - $2::interval",
        projection.name, older_than,
    )  # fmt: skip
    for row in rows:
        await drop(connection, projection, row["generation"])
    return len(rows)
