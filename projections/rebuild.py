"""Rebuilding a view from the log while it is in use: a new generation is folded beside the live one, compared with it, put in its place."""

from __future__ import annotations

import asyncio
import time
from typing import Self
from uuid import uuid4

import asyncpg
import msgspec

from domain.upcasters import UnknownSchema
from projections import cursor
from projections.compare import Difference, differences, digest
from projections.connect import connect
from projections.cursor import Standing
from projections.fold import fold_range
from projections.fresh import Progress
from projections.generations import LEASE, Building, flip, take_building, take_retired
from projections.pace import Pace
from projections.projection import GapInLog, Ousted, Projection, Refused
from projections.source import Connection, Read
from projections.worker import passing, poison, reason

TRIES = 20
"""Attempts at comparing and at flipping: the lease's renewal, or readers of the view, may be in the way of one."""
_PAUSE_SECONDS = 0.25
_SMALL = 1_000
"""Up to so many events are folded in one statement; a table for their delta would cost more than it gains."""


class Rebuilt(msgspec.Struct, frozen=True):
    """How a rebuild ended. `flipped`: the new generation is the one that is read. `digest` is the new generation's at `position`,
    `before` that of the generation it replaces; where they differ, `differing` rows do, of which some are named.

    `events` were folded in `seconds`; `resumed` says that an earlier run had begun.
    """

    projection: str
    generation: int
    previous: int
    position: int
    digest: str
    before: str
    differing: int
    differences: list[Difference]
    flipped: bool
    resumed: bool
    events: int
    seconds: float


class Rebuild:
    """A rebuild or rollback of one projection by one process; when that dies another goes on where it stood. `dsn` as for the runner."""

    def __init__(
        self, dsn: str, projection: Projection, read: Read | None = None, progress: Progress | None = None
    ) -> None:
        self._dsn = dsn
        self._projection = projection
        self._read = read
        self._progress = progress
        self._owner = uuid4()

    async def run(self, *, accept_differences: bool = False) -> Rebuilt:
        """Build, compare, flip. Where the digests differ nothing is flipped unless `accept_differences`: the new generation is kept,
        and the next run goes on with it. Raises `Refused`, and what a fold raises.
        """
        started = time.monotonic()
        connection = await connect(self._dsn, f"rebuild {self._projection.name}", bulk=True)
        try:
            self._must_not_be_halted(await cursor.look(connection, self._projection))
            building, resumed = await take_building(connection, self._projection, self._owner)
            begun = building.position
            async with _Renewal(self._dsn, self._projection, building):
                building, live, mine, before, found = await self._compare(connection, building)
                flipped = mine == before or accept_differences
                position = building.position
                if flipped:
                    building = await self._flip(connection, building, live)
        except Ousted:
            raise self._ousted() from None
        finally:
            connection.terminate()
        return Rebuilt(
            self._projection.name, building.generation, live.generation, position, mine, before, *found,
            flipped, resumed, building.position - begun, time.monotonic() - started,
        )  # fmt: skip

    async def roll_back(self) -> tuple[int, int]:
        """Read the generation before the last rebuild again, caught up; returns that generation and the one it replaces. Raises `Refused`."""
        connection = await connect(self._dsn, f"rollback {self._projection.name}", bulk=True)
        try:
            self._must_not_be_halted(await cursor.look(connection, self._projection))
            building = await take_retired(connection, self._projection, self._owner)
            async with _Renewal(self._dsn, self._projection, building):
                live = await cursor.look(connection, self._projection)
                await self._flip(connection, building, live)
        except Ousted:
            raise self._ousted() from None
        finally:
            connection.terminate()
        return building.generation, live.generation

    def _must_not_be_halted(self, live: Standing) -> None:
        if live.error is not None:
            raise Refused(
                f"{self._projection.name!r} is halted before the event at position {live.failed_position} ({live.error}), and another "
                "generation would halt there too: run a release that can fold it, or let the view go on without it with "
                f"`emberlog projections park {self._projection.name}`"
            )

    def _ousted(self) -> Refused:
        return Refused(
            f"another process has taken over what was being made of {self._projection.name!r}, for this one was stopped, or could not reach "
            "the database, for too long: wait for it, or run this again"
        )

    async def _catch_up(self, connection: Connection, building: Building) -> Building:
        """Fold up to where the live view stands."""
        pace = Pace()
        while True:
            live = await cursor.look(connection, self._projection)
            if self._progress is not None:
                self._progress(building.position, live.position)
            self._must_not_be_halted(live)
            if live.position <= building.position:
                return building
            before = building.position
            began = time.monotonic()
            building = await self._step(connection, building, live.position, pace.batch(live.head))
            await pace.rest(time.monotonic() - began, building.position - before)

    async def _step(self, connection: Connection, building: Building, upto: int, batch: int) -> Building:
        """Fold one batch. An event that cannot be folded is found by halving, and parked if the view parks, or if the live generation
        went on without it too.
        """
        while True:
            end = min(upto, building.position + batch)
            try:
                await cursor.fold(
                    connection, self._projection, building.generation, building.fence, building.position, end, LEASE,
                    self._read, bulk=end - building.position > _SMALL,
                )  # fmt: skip
            except (GapInLog, UnknownSchema, asyncpg.PostgresError) as error:
                if passing(error):
                    raise
                if end - building.position > 1:
                    batch = (end - building.position) // 2
                    continue
                await self._park(connection, building, end, error)
            return msgspec.structs.replace(building, position=end)

    async def _park(self, connection: Connection, building: Building, position: int, error: Exception) -> None:
        live = await cursor.look(connection, self._projection)
        before = await connection.fetchrow(
            "SELECT discarded_at FROM projections.parked WHERE name = $1 AND generation = $2 AND position = $3",
            self._projection.name, live.generation, position,
        )  # fmt: skip
        if isinstance(error, GapInLog):
            raise Refused(
                f"the log cannot be read at position {position} ({reason(error)}). The live view is unchanged: `emberlog log verify` says what "
                "is missing; put it back, then run this again"
            ) from error
        if before is None and (self._projection.halts or not poison(error)):
            raise Refused(
                f"the event at position {position} cannot be folded ({reason(error)}). The live view is unchanged: run a release that "
                "can fold it, then run this again"
            ) from error
        await cursor.park(
            connection, self._projection, building.generation, building.fence, position, reason(error), LEASE,
            None if before is None else before["discarded_at"],
        )  # fmt: skip

    async def _compare(
        self, connection: Connection, building: Building
    ) -> tuple[Building, Standing, str, str, tuple[int, list[Difference]]]:
        """Both generations at one position, in one snapshot: their digests, and how they differ if they do."""
        projection = self._projection
        for left in reversed(range(TRIES)):
            building = await self._catch_up(connection, building)
            try:
                async with connection.transaction(isolation="repeatable_read"):
                    live = await cursor.look(connection, projection)
                    mine_at, after = projection.table_of(building.generation), building.position
                    await cursor.hold(connection, projection, building.generation, building.fence, after)
                    if live.position > after:
                        time_of = await fold_range(connection, projection, mine_at, after, live.position, self._read)
                        await cursor.advance(
                            connection, projection, building.generation, building.fence, after, live.position, time_of, LEASE
                        )  # fmt: skip
                    theirs_at = projection.table_of(live.generation)
                    mine = await digest(connection, projection, mine_at, live.recorded_at)
                    before = await digest(connection, projection, theirs_at, live.recorded_at)
                    found: tuple[int, list[Difference]] = (0, [])
                    if mine != before:
                        found = await differences(connection, projection, theirs_at, mine_at, live.recorded_at)
                building = msgspec.structs.replace(building, position=live.position)
                return building, live, mine, before, found
            except (asyncpg.PostgresError, UnknownSchema):
                if not left:
                    raise
        raise AssertionError("unreachable")

    async def _flip(self, connection: Connection, building: Building, live: Standing) -> Building:
        for left in reversed(range(TRIES)):
            building = await self._catch_up(connection, building)
            try:
                position = await flip(connection, self._projection, live.generation, building, self._read)
                return msgspec.structs.replace(building, position=position)
            except (asyncpg.LockNotAvailableError, asyncpg.DeadlockDetectedError):
                if not left:
                    raise Refused(
                        f"{self._projection.name!r} is read without a pause, so its new generation cannot take its place: run this again"
                    ) from None
                await asyncio.sleep(_PAUSE_SECONDS)
            except (asyncpg.PostgresError, UnknownSchema):
                if not left:
                    raise  # anything but an event that the live generation has parked meanwhile, and catching up will
        raise AssertionError("unreachable")


class _Renewal:
    """Keeps the lease of a generation being built, over a connection of its own, while batches and digests take their time.

    At the end it gives it back, so that whoever runs a rebuild again that failed or was interrupted need not wait.
    """

    def __init__(self, dsn: str, projection: Projection, building: Building) -> None:
        self._dsn = dsn
        self._projection = projection
        self._building = building

    async def __aenter__(self) -> Self:
        self._connection = await connect(self._dsn, f"lease of {self._projection.name}")
        self._task = asyncio.create_task(self._renew())
        return self

    async def __aexit__(self, *_: object) -> None:
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)
        try:
            async with asyncio.timeout(2):
                await cursor.release(
                    self._connection, self._projection, self._building.generation, self._building.fence
                )
        except (OSError, TimeoutError, asyncpg.InterfaceError, asyncpg.PostgresError):
            pass  # it runs out
        finally:
            self._connection.terminate()

    async def _renew(self) -> None:
        while True:
            await asyncio.sleep(LEASE.total_seconds() / 3)
            try:
                await cursor.renew(
                    self._connection, self._projection, self._building.generation, self._building.fence, LEASE
                )
            except asyncpg.LockNotAvailableError:
                continue  # a transaction of ours holds the row: nobody takes it meanwhile
