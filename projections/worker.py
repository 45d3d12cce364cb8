"""One projection in one process: owns it when nobody else does and folds what is new, else watches how far the owner has come."""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Callable
from contextlib import suppress
from datetime import timedelta
from uuid import UUID

import asyncpg
import structlog

from domain.events import EventData, ProjectionHalted, ProjectionParked
from domain.upcasters import UnknownSchema
from projections import cursor
from projections.connect import connect
from projections.cursor import Standing
from projections.projection import GapInLog, Ousted, Projection
from projections.source import Connection, Read

_log = structlog.get_logger("emberlog.projections")

POLL_SECONDS = 0.25
BATCH = 20_000
PRUNE_SECONDS = 600.0
RETRY_SECONDS = (0.1, 30.0)
"""The first pause after a failure and the longest; each is twice the one before."""

_QUOTED = re.compile(r'".*"|".*$', re.DOTALL)
"""From the first quotation mark to the last, or to the end: a value may hold some, and may be cut off."""

_UNPRINTABLE = dict.fromkeys(range(32), " ")
"""The log takes no U+0000 and no record separator."""

Trouble = Callable[[EventData], None]
"""Told once a process of an event that a view cannot fold: that the view halted before it, or went on without it."""

# Classes of SQLSTATE that say nothing about the events: lost connections, conflicts between transactions, locks, exhausted
# resources, an operator's doing; and a session ended because its process was stopped in a transaction.
_PASSING = ("08", "25P", "40", "53", "55", "57", "58")
# Classes that speak of a value: data exceptions, constraints, and what a function of ours raises.
_POISON = ("22", "23", "P0")


class Worker:
    """Folds `projection` over connections to `dsn`. `run` until `stop`; the rest says where it stands."""

    def __init__(
        self,
        dsn: str,
        projection: Projection,
        owner: UUID,
        *,
        batch: int,
        lease_seconds: float,
        poll_seconds: float,
        read: Read | None = None,
        on_trouble: Trouble | None = None,
    ) -> None:
        self.projection = projection
        self.standing: Standing | None = None
        self.changed = asyncio.Event()
        self._dsn = dsn
        self._owner = owner
        self._read = read
        self._on_trouble = on_trouble
        self._told: ProjectionHalted | None = None
        self._max_batch = self._batch = batch
        self._lease_seconds = lease_seconds
        self._lease = timedelta(seconds=lease_seconds)
        self._poll_seconds = poll_seconds
        self._connection: Connection | None = None
        self._fence: int | None = None
        self._generation = 0
        self._renewed_at = self._folded_at = 0.0
        self._looked_at = time.monotonic()
        self._pruned_at = 0.0
        self._pause = 0.0
        self._resume_at = 0.0
        self._wake = asyncio.Event()
        self._stopping = False

    def wake(self) -> None:
        """There may be new events."""
        self._wake.set()

    @property
    def halted(self) -> str | None:
        """Why the view cannot go on, as far as its present owner has found, or this process; None while it can, or nobody has tried."""
        seen = self.standing
        if seen is None or ((seen.free or self._fence is not None) and not self._pause):
            return None
        return seen.error

    def lag(self) -> tuple[int, float]:
        """Events not folded yet, and the age of the oldest in seconds. While the database is away the age grows from what was last seen."""
        seen = self.standing
        unseen = time.monotonic() - self._looked_at
        if seen is None:
            return 0, unseen
        stale = unseen if unseen > 4 * self._poll_seconds and (seen.head > seen.position or unseen > 5.0) else 0.0
        return max(0, seen.head - seen.position), seen.lag_seconds + stale

    async def run(self) -> None:
        """Fold until `stop`; then give the projection back."""
        try:
            while not self._stopping:
                try:
                    if await self._round():
                        continue
                except Ousted:
                    _log.warning("projection_taken_over", projection=self.projection.name)
                    self._fence = None
                    continue
                except Exception as error:
                    # A lost connection, mostly; of a stopped process's connection asyncpg may also raise what it documents nowhere.
                    # Whatever it is, the view must go on once it has passed, which a worker that has ended never would.
                    self._failed(error)
                    self._disconnect()
                await self._sleep()
        finally:
            await self._give_back()

    def stop(self) -> None:
        """End `run` after the batch at work."""
        self._stopping = True
        self._wake.set()

    async def _round(self) -> bool:
        """Look, and do what is due. Returns whether there may be more to do at once."""
        connection = await self._connect()
        before, seen = self.standing, await self._look(connection)
        if before is not None and before.error is not None and seen.error is None:
            self._pause = self._resume_at = 0.0  # an operator let the view go on
        if self._fence is not None and (seen.generation, seen.fence) != (self._generation, self._fence):
            raise Ousted(self.projection.name)
        if self._fence is None:
            if not seen.free or time.monotonic() < self._resume_at:
                return False
            self._generation = seen.generation
            self._fence = await cursor.acquire(connection, self.projection, seen.generation, self._owner, self._lease)
            self._renewed_at = time.monotonic()
            if self._fence is None and await cursor.end_stuck(connection, self.projection, self._lease):
                _log.warning("stuck_owner_ended", projection=self.projection.name)
            return self._fence is not None
        if seen.head > seen.position and time.monotonic() >= self._resume_at:
            return await self._step(connection, self._fence, seen)
        if time.monotonic() - self._renewed_at > self._lease_seconds / 3:
            await cursor.renew(connection, self.projection, self._generation, self._fence, self._lease)
            self._renewed_at = time.monotonic()
        if self.projection.kept and time.monotonic() - self._pruned_at > PRUNE_SECONDS:
            await cursor.prune(connection, self.projection, self._fence, seen)
            self._pruned_at = time.monotonic()
        return False

    async def _step(self, connection: Connection, fence: int, seen: Standing) -> bool:
        """Fold the next batch. One that fails is tried in halves, until the event at fault stands alone: the view halts, or parks it."""
        upto = min(seen.head, seen.position + self._batch)
        try:
            await cursor.fold(
                connection, self.projection, self._generation, fence, seen.position, upto, self._lease, self._read
            )
        except (GapInLog, UnknownSchema, asyncpg.PostgresError) as error:
            if passing(error):
                raise
            if upto - seen.position > 1:
                self._batch = (upto - seen.position) // 2
                return True
            if isinstance(error, UnknownSchema):
                # Not the event is at fault but this release: whoever knows more may have the view.
                await self._halt(connection, fence, upto, error)
                await cursor.release(connection, self.projection, self._generation, fence)
                self._fence = None
                return False
            if self.projection.halts or not poison(error):
                await self._halt(connection, fence, upto, error)
                return False
            await self._park(connection, fence, upto, error)
        self._batch = min(self._max_batch, self._batch * 2)
        self._pause = self._resume_at = 0.0
        self._renewed_at = self._folded_at = time.monotonic()
        await self._look(connection)
        return upto < seen.head

    async def _halt(self, connection: Connection, fence: int, position: int, error: Exception) -> None:
        self._failed(error)
        await cursor.halt(connection, self.projection, self._generation, fence, position, reason(error))
        halted = ProjectionHalted(
            projection=self.projection.name,
            generation=self._generation,
            failed_position=position,
            error=reason(error),
        )
        if halted != self._told:
            self._told = halted
            _log.critical("projection_halted", projection=self.projection.name, position=position, reason=halted.error)
            self._tell(halted)
        await self._look(connection)

    async def _park(self, connection: Connection, fence: int, position: int, error: Exception) -> None:
        why = reason(error)
        await cursor.park(connection, self.projection, self._generation, fence, position, why, self._lease)
        _log.error("event_parked", projection=self.projection.name, position=position, reason=why)
        self._tell(
            ProjectionParked(
                projection=self.projection.name, generation=self._generation, failed_position=position, error=why
            )
        )

    def _tell(self, trouble: EventData) -> None:
        if self._on_trouble is not None:
            self._on_trouble(trouble)

    async def _look(self, connection: Connection) -> Standing:
        self.standing = seen = await cursor.look(connection, self.projection)
        self._looked_at = time.monotonic()
        self.changed.set()
        self.changed = asyncio.Event()
        return seen

    def _failed(self, error: Exception) -> None:
        self._pause = min(RETRY_SECONDS[1], self._pause * 2 or RETRY_SECONDS[0])
        self._resume_at = time.monotonic() + self._pause
        _log.error(
            "projection_failed", projection=self.projection.name, reason=reason(error), retry_in_seconds=self._pause
        )  # fmt: skip

    async def _sleep(self) -> None:
        """Until there is a wake-up or the next poll; without a connection, for the whole pause."""
        pause = self._poll_seconds
        if self._connection is None:
            pause = max(pause, self._resume_at - time.monotonic())
        with suppress(TimeoutError):
            async with asyncio.timeout(pause):
                await self._wake.wait()
        if not self._stopping and (rest := self._folded_at + self.projection.rest - time.monotonic()) > 0:
            await asyncio.sleep(rest)
        self._wake.clear()

    async def _connect(self) -> Connection:
        if self._connection is None or self._connection.is_closed():
            self._connection = await connect(
                self._dsn,
                f"projection {self.projection.name}",
                # A process stopped within a transaction must not keep the next owner waiting.
                {"idle_in_transaction_session_timeout": str(int(self._lease_seconds * 1000))},
            )
        return self._connection

    def _disconnect(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.terminate()

    async def _give_back(self) -> None:
        """Release the lease and close, as far as the database is there; otherwise the lease runs out."""
        connection = self._connection
        if connection is None:
            return
        try:
            async with asyncio.timeout(2):
                if self._fence is not None and not connection.is_closed():
                    await cursor.release(connection, self.projection, self._generation, self._fence)
                await connection.close()
        except (OSError, TimeoutError, asyncpg.InterfaceError, asyncpg.PostgresError):
            connection.terminate()
        self._connection = None


def passing(error: Exception) -> bool:
    """Whether an error says nothing about the events: it is tried again as it was."""
    return isinstance(error, asyncpg.PostgresError) and str(error.sqlstate).startswith(_PASSING)


def poison(error: Exception) -> bool:
    """Whether an error is an event's own: its data, a value out of bounds. A missing table or right, or a full disk, are not."""
    return isinstance(error, asyncpg.PostgresError) and str(error.sqlstate).startswith(_POISON)


def reason(error: BaseException) -> str:
    """What went wrong, for operators and as text of an event. Of Postgres's errors the message without the values it quotes: its detail
    holds whole rows.
    """
    text = str(error.args[0]) if error.args else ""
    if isinstance(error, asyncpg.PostgresError):
        text = f"{error.sqlstate}: " + text.partition(': "')[0]
        if str(error.sqlstate).startswith("22"):
            text = _QUOTED.sub("...", text)  # in data exceptions a quoted word is a value, elsewhere a name
    return f"{type(error).__name__}: {text}".encode(errors="replace").decode().translate(_UNPRINTABLE)[:500]
