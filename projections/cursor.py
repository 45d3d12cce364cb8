"""A projection's cursor: who owns it, where it stands, and the one transaction that folds a batch and moves it."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import TypeAlias
from uuid import UUID

import asyncpg
import msgspec

from projections.projection import GapInLog, Ousted, Projection, UnknownSchema
from projections.statements import statement

Connection: TypeAlias = "asyncpg.Connection[asyncpg.Record]"

_LOOK, _CREATE, _ACQUIRE, _RENEW, _RELEASE, _HOLD, _CHECK, _ADVANCE, _HALT, _EVICT = (
    statement("projections.sql", name)
    for name in ("look", "create", "acquire", "renew", "release", "hold", "check", "advance", "halt", "evict")
)


class Standing(msgspec.Struct, frozen=True):
    """Where a projection stands. `head` is the log's; `lag_seconds` the age of its first event that is not folded, 0 without any.

    `recorded_at` is the time of the event at `position`. `error` says why the event at `failed_position` cannot be folded.
    """

    position: int
    head: int
    lag_seconds: float
    fence: int
    free: bool
    owner: UUID | None = None
    recorded_at: datetime | None = None
    error: str | None = None
    failed_position: int | None = None


async def look(connection: Connection, projection: Projection) -> Standing:
    """Where the projection stands now; its cursor is made if it has none."""
    key = (projection.name, projection.generation)
    row = await connection.fetchrow(_LOOK, *key)
    if row is None:
        await connection.execute(_CREATE, *key)
        row = await connection.fetchrow(_LOOK, *key)
    return msgspec.convert(dict(row or {}), Standing)


async def acquire(connection: Connection, projection: Projection, owner: UUID, lease: timedelta) -> int | None:
    """Become the owner if nobody is; returns the fence to show from now on, or None."""
    row = await connection.fetchrow(_ACQUIRE, projection.name, projection.generation, owner, lease)
    return None if row is None else int(row["fence"])


async def renew(connection: Connection, projection: Projection, fence: int, lease: timedelta) -> None:
    """Extend the lease. Raises `Ousted`."""
    if await connection.fetchval(_RENEW, projection.name, projection.generation, fence, lease) is None:
        raise Ousted(projection.name)


async def release(connection: Connection, projection: Projection, fence: int) -> None:
    """Let another own the projection at once."""
    await connection.execute(_RELEASE, projection.name, projection.generation, fence)


async def halt(connection: Connection, projection: Projection, fence: int, position: int, error: str) -> None:
    """Record that the event at `position` cannot be folded."""
    await connection.execute(_HALT, projection.name, projection.generation, fence, position, error)


async def evict_owners(connection: Connection) -> None:
    """End every ownership. Only where no other process can use this database: an embedded one whose data folder we hold."""
    await connection.execute(_EVICT)


async def fold(
    connection: Connection, projection: Projection, fence: int, after: int, upto: int, lease: timedelta
) -> None:
    """Fold the events in (after, upto] and move the cursor, in one transaction: both or neither.

    Raises `Ousted`, `GapInLog`, `UnknownSchema`, and whatever a statement raises; nothing has changed then.
    """
    key = (projection.name, projection.generation)
    async with connection.transaction():
        if await connection.fetchval(_HOLD, *key, after, fence) is None:
            raise Ousted(projection.name)
        found = await connection.fetchrow(_CHECK, after, upto, projection.types, projection.schemas)
        assert found is not None
        if found["events"] != upto - after:
            raise GapInLog(f"positions {after + 1} to {upto} hold {found['events']} events, expected {upto - after}")
        if found["unknown"] is not None:
            raise UnknownSchema(
                f"the event at position {found['unknown']} has a schema version this build does not know"
            )
        for sql in projection.apply:
            await connection.execute(sql, after, upto)
        if await connection.fetchval(_ADVANCE, *key, after, upto, found["recorded_at"], fence, lease) is None:
            raise Ousted(projection.name)


async def prune(connection: Connection, projection: Projection, fence: int, at: Standing) -> None:
    """Forget what the view no longer keeps as of `at`. Raises `Ousted`."""
    if projection.prune is None or at.recorded_at is None:
        return
    async with connection.transaction():
        if await connection.fetchval(_HOLD, projection.name, projection.generation, at.position, fence) is None:
            raise Ousted(projection.name)
        await connection.execute(projection.prune, at.recorded_at)
