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

_ACQUIRE, _BUILDING, _BEGIN, _RETIRED, _SET_STATE, _HOLD_LIVE, _DROP = (
    statement("projections.sql", name)
    for name in ("acquire", "building", "begin", "retired", "set_state", "hold_live", "drop")
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
    try:
        async with connection.transaction():
            found = await connection.fetchrow(_BUILDING, projection.name)
            if found is not None and found["fold"] == projection.fold:
                return await _take(connection, projection, found["generation"], owner), True
            floor = await _drop_unfinished(connection, projection, found)
            generation = await connection.fetchval(_BEGIN, projection.name, projection.fold, floor)
            await connection.execute(projection.create_sql(projection.table_of(generation)))
            return await _take(connection, projection, generation, owner), False
    except (asyncpg.UniqueViolationError, asyncpg.LockNotAvailableError):
        raise Refused(_taken(projection)) from None


async def take_retired(connection: Connection, projection: Projection, owner: UUID) -> Building:
    """The generation before the live one, to be caught up and read again; a rebuild that was left unfinished is dropped for it.

    Raises `Refused` where there is none, and while another process is at it.
    """
    try:
        async with connection.transaction():
            building = await connection.fetchrow(_BUILDING, projection.name)
            if building is not None and building["fold"] == _rollback(projection):
                return await _take(connection, projection, building["generation"], owner)  # one that a crash left
            found = await connection.fetchrow(_RETIRED, projection.name)
            if found is None:
                raise Refused(
                    f"{projection.name!r} has no generation to go back to: only a rebuild leaves one, for a week"
                )
            generation = found["generation"]
            if found["fold"] not in (None, projection.fold):
                raise Refused(
                    f"generation {generation} of {projection.name!r} was folded by another release's statements: roll back with that release"
                )
            await _drop_unfinished(connection, projection, building)
            await connection.execute(_SET_STATE, projection.name, generation, "building", _rollback(projection))
            return await _take(connection, projection, generation, owner)
    except (asyncpg.UniqueViolationError, asyncpg.LockNotAvailableError):
        raise Refused(_taken(projection)) from None


async def _drop_unfinished(connection: Connection, projection: Projection, found: asyncpg.Record | None) -> int:
    """Drop what was being built, locked as `found`. Raises `Refused` while another process is at it.

    Returns its number, which is not used again: a process that was stopped over it must not take another's work for its own.
    """
    if found is None:
        return 0
    if not found["free"]:
        raise Refused(_taken(projection))
    await drop(connection, projection, found["generation"], "building")
    return int(found["generation"])


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
        now = await connection.fetchrow(_HOLD_LIVE, name)
        if now is None or now["generation"] != live:
            raise Refused(f"generation {live} of {name!r} is not the live one any more: look at it and decide again")
        position = now["position"]
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
            await drop(connection, projection, row["generation"], "retired")
        await connection.execute(_SET_STATE, name, live, "retired", projection.fold)
        await connection.execute(_SET_STATE, name, building.generation, "live", projection.fold)
        await _point(connection, projection, building.generation)
    return int(position)


async def _point(connection: Connection, projection: Projection, generation: int) -> None:
    """Let the view read a generation's table. It stays the same view, with what others were granted on it and have built on it."""
    view, table = f"projections.{projection.name}", projection.table_of(generation)
    try:
        async with connection.transaction():
            await connection.execute(f"CREATE OR REPLACE VIEW {view} AS TABLE {table}")
    except (
        asyncpg.InvalidTableDefinitionError
    ):  # a later release's table has other columns, which a view cannot change to
        await connection.execute(f"DROP VIEW {view}")
        await connection.execute(f"CREATE VIEW {view} AS TABLE {table}")


async def drop(connection: Connection, projection: Projection, generation: int, state: str) -> bool:
    """Drop a generation that is in this state, and not read: its table, its cursor and what it parked. Returns whether it was there."""
    async with connection.transaction():
        if await connection.fetchval(_DROP, projection.name, generation, state) is None:
            return False
        await connection.execute(f"DROP TABLE IF EXISTS {projection.table_of(generation)}")
        await connection.execute(
            "DELETE FROM projections.parked WHERE name = $1 AND generation = $2", projection.name, generation
        )
    return True


async def drop_retired(connection: Connection, projection: Projection, older_than: timedelta) -> int:
    """Drop the generations that were retired longer ago; returns how many."""
    rows = await connection.fetch(
        "SELECT generation FROM projections.cursors WHERE name = $1 AND state = 'retired' AND state_since < clock_timestamp() - $2::interval",
        projection.name, older_than,
    )  # fmt: skip
    return sum([await drop(connection, projection, row["generation"], "retired") for row in rows])
