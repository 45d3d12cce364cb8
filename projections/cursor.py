"""A projection's cursor: who owns it, where it stands, and the one transaction that folds a batch and moves it."""

from __future__ import annotations

from datetime import datetime, timedelta
from enum import StrEnum
from uuid import UUID

import msgspec

from projections.connect import application_name
from projections.fold import fold_range
from projections.projection import Ousted, Projection
from projections.source import Connection, Read
from projections.statements import statement

_END_STUCK, _LOOK, _CREATE, _ACQUIRE, _RENEW, _RELEASE, _HOLD, _ADVANCE, _HALT, _EVICT, _PARK = (
    statement("projections.sql", name)
    for name in (
        "end_stuck",
        "look",
        "create",
        "acquire",
        "renew",
        "release",
        "hold",
        "advance",
        "halt",
        "evict",
        "park",
    )
)
STALLED_SECONDS = 10.0
"""A view that is behind, and whose cursor has not moved for this long, is stalled: twice the lease of an owner that died."""


class State(StrEnum):
    """How a view stands to the log."""

    LIVE = "live"
    """Up with the log, or at most a moment behind."""
    LAGGING = "lagging"
    """Behind, and moving."""
    STALLED = "stalled"
    """Behind, and nobody moves it: no process runs, or the database does not let it."""
    HALTED = "halted"
    """Before an event that it cannot fold."""


class Standing(msgspec.Struct, frozen=True):
    """Where the live generation of a projection stands. `head` is the log's; `lag_seconds` the age of the first event not folded, 0
    without any; `still_seconds` how long the cursor has not moved.

    `recorded_at` is the time of the event at `position`. `error` says why the event at `failed_position` cannot be folded. `parked`
    counts the events that the view went on without and that wait for a decision.
    """

    generation: int
    position: int
    head: int
    lag_seconds: float
    still_seconds: float
    fence: int
    free: bool
    parked: int = 0
    owner: UUID | None = None
    recorded_at: datetime | None = None
    error: str | None = None
    failed_position: int | None = None

    @property
    def state(self) -> State:
        """See `State`."""
        if self.error is not None:
            return State.HALTED
        if self.lag_seconds < 1.0:
            return State.LIVE
        return State.STALLED if min(self.lag_seconds, self.still_seconds) > STALLED_SECONDS else State.LAGGING


async def look(connection: Connection, projection: Projection) -> Standing:
    """Where the projection stands now; its cursor is made if it has none."""
    row = await connection.fetchrow(_LOOK, projection.name)
    if row is None:
        await connection.execute(_CREATE, projection.name)
        row = await connection.fetchrow(_LOOK, projection.name)
    return msgspec.convert(dict(row or {}), Standing)


async def acquire(
    connection: Connection, projection: Projection, generation: int, owner: UUID, lease: timedelta
) -> int | None:
    """Become the owner of a generation if nobody is; returns the fence to show from now on, or None."""
    row = await connection.fetchrow(_ACQUIRE, projection.name, generation, owner, lease)
    return None if row is None else int(row["fence"])


async def end_stuck(connection: Connection, projection: Projection, lease: timedelta) -> int:
    """End the sessions of owners that keep the cursor's row locked and have said nothing for a lease; returns how many.

    Seen are those of the same database login.
    """
    async with connection.transaction():
        await connection.execute(
            "SET LOCAL ROLE NONE"
        )  # a session is seen and ended by its login, not by the role it took
        return int(await connection.fetchval(_END_STUCK, application_name(f"projection {projection.name}"), lease))


async def renew(connection: Connection, projection: Projection, generation: int, fence: int, lease: timedelta) -> None:
    """Extend the lease. Raises `Ousted`."""
    if await connection.fetchval(_RENEW, projection.name, generation, fence, lease) is None:
        raise Ousted(projection.name)


async def release(connection: Connection, projection: Projection, generation: int, fence: int) -> None:
    """Let another own the generation at once."""
    await connection.execute(_RELEASE, projection.name, generation, fence)


async def halt(
    connection: Connection, projection: Projection, generation: int, fence: int, position: int, error: str
) -> None:
    """Record that the event at `position` cannot be folded."""
    await connection.execute(_HALT, projection.name, generation, fence, position, error)


async def evict_owners(connection: Connection) -> None:
    """End every ownership. Only where no other process can use this database: an embedded one whose data folder we hold."""
    await connection.execute(_EVICT)


async def hold(connection: Connection, projection: Projection, generation: int, fence: int, position: int) -> None:
    """Lock the cursor for this transaction. Raises `Ousted` unless it stands at `position` and `fence` owns it."""
    if await connection.fetchval(_HOLD, projection.name, generation, position, fence) is None:
        raise Ousted(projection.name)


async def advance(
    connection: Connection,
    projection: Projection,
    generation: int,
    fence: int,
    after: int,
    upto: int,
    recorded_at: datetime | None,
    lease: timedelta,
) -> None:
    """Move the cursor and extend the lease. Raises `Ousted`."""
    key = (projection.name, generation)
    if await connection.fetchval(_ADVANCE, *key, after, upto, recorded_at, fence, lease) is None:
        raise Ousted(projection.name)


async def fold(
    connection: Connection,
    projection: Projection,
    generation: int,
    fence: int,
    after: int,
    upto: int,
    lease: timedelta,
    read: Read | None = None,
    *,
    bulk: bool = False,
) -> None:
    """Fold the events in (after, upto] and move the cursor, in one transaction: both or neither.

    Raises `Ousted`, `GapInLog`, `UnknownSchema`, and whatever a statement raises; nothing has changed then.
    """
    async with connection.transaction():
        await hold(connection, projection, generation, fence, after)
        table = projection.table_of(generation)
        recorded_at = await fold_range(connection, projection, table, after, upto, read, bulk=bulk)
        await advance(connection, projection, generation, fence, after, upto, recorded_at, lease)


async def park(
    connection: Connection,
    projection: Projection,
    generation: int,
    fence: int,
    position: int,
    error: str,
    lease: timedelta,
    discarded_at: datetime | None = None,
) -> None:
    """Go on without the event at `position`, the next one, and note that it waits. Raises `Ousted`."""
    async with connection.transaction():
        await hold(connection, projection, generation, fence, position - 1)
        await connection.execute(_PARK, projection.name, generation, position, error, discarded_at)
        recorded_at = await connection.fetchval("SELECT recorded_at FROM emberlog.events WHERE position = $1", position)
        await advance(connection, projection, generation, fence, position - 1, position, recorded_at, lease)


async def prune(connection: Connection, projection: Projection, fence: int, at: Standing) -> None:
    """Forget what the view no longer keeps as of `at`. Raises `Ousted`.

    Nothing while events are parked: one folded late must find the rows that it would have found.
    """
    sql = projection.prune_sql(projection.table_of(at.generation))
    if sql is None or at.recorded_at is None or at.parked:
        return
    async with connection.transaction():
        await hold(connection, projection, at.generation, fence, at.position)
        await connection.execute(sql, at.recorded_at)
