"""Moving old partitions of the log into segment files: nothing is let go of before its file has been read back and checked."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from datetime import datetime, timedelta
from enum import StrEnum
from pathlib import Path

import asyncpg
import msgspec

from adapters.archive.segment import MEMBER_EVENTS, Segment, SegmentWriter, check_segment
from adapters.archive.statements import statement
from adapters.postgres.batch import encode
from adapters.postgres.event_log import READER_SETTINGS, stored_events
from adapters.postgres.pool import Connection, connect
from adapters.postgres.statements import statement as log_statement
from domain.events import LogArchived
from domain.facts import system_fact
from domain.ports.event_log import LogDamaged, StoredEvent

REFUSED = "EL005"
TRIES = 5
PAUSE_SECONDS = 2.0
"""Between two tries to let go of a partition that readers hold."""
_LOCK = 4993438714461021456
_SEALS_A_CALL = 100
_PAGE = 1_000


class ArchiveRefused(Exception):
    """A partition cannot be archived now; the message says why. Nothing was changed."""


class Step(StrEnum):
    """How far a partition is. After each of them the process may die: the next run does what is left."""

    WRITTEN = "written"
    """A member of the file is written."""
    NAMED = "named"
    """The file is on disk under its name."""
    CHECKED = "checked"
    """The file was read back and holds what the table holds."""
    DROPPED = "dropped"
    """The table is dropped in a transaction that is not committed."""
    MOVED = "moved"
    """The transaction is committed: the events are read from the file."""


class Partition(msgspec.Struct, frozen=True):
    """A partition that may be archived. `recorded_at` is the time of its newest event."""

    first_position: int
    last_position: int
    name: str
    recorded_at: datetime

    @property
    def events(self) -> int:
        """How many there are."""
        return self.last_position - self.first_position + 1


OnStep = Callable[[Partition, Step, int], Awaitable[None]]
"""Told of each step, with the position that it has reached."""


async def _quiet(partition: Partition, step: Step, position: int) -> None:
    """Tell nobody."""


class Archiver:
    """One run over the partitions of a log. Made by `Archiver.open`; only the database's owner may do this."""

    def __init__(self, connection: Connection, app_dsn: str, folder: Path) -> None:
        self._connection = connection
        self._app_dsn = app_dsn
        self._folder = folder

    @classmethod
    async def open(cls, owner_dsn: str, app_dsn: str, folder: Path) -> Archiver:
        """Connect as the owner. `app_dsn` is the application's login, which is asked what its views say.

        Raises what connecting raises, `ArchiveRefused` while another archives this log, where its segments lie in another folder, and to
        whoever is not the owner.
        """
        # A slow disk must not cost a long run its transaction.
        settings = READER_SETTINGS | {"idle_in_transaction_session_timeout": "0"}
        connection = await connect(owner_dsn, "archive", role=False, statement_timeout=0, settings=settings)
        archiver = cls(connection, app_dsn, folder)
        try:
            if not await connection.fetchval("SELECT has_schema_privilege('emberlog', 'CREATE')"):
                raise ArchiveRefused(
                    "only the owner of the schema may archive: set EMBERLOG_DATABASE_OWNER_URL to the owner's login"
                )
            await connection.execute(log_statement("durable"))
            if not await connection.fetchval("SELECT pg_try_advisory_lock($1)", _LOCK):
                raise ArchiveRefused("another process archives this log: wait for it to end")
            newest = await connection.fetchval(statement("newest_segment"))
            if newest is not None and not await asyncio.to_thread((folder / newest).is_file):
                raise ArchiveRefused(
                    f"the newest segment of this log, {newest}, is not in {folder}, and all of them must lie in one folder to be read: set "
                    "EMBERLOG_ARCHIVE_DIR to the folder that holds them, or bring them here"
                )
        except BaseException:
            await archiver.close()
            raise
        return archiver

    async def close(self) -> None:
        """Disconnect; what is not committed never was."""
        await self._connection.close()

    async def candidates(self, before: datetime) -> list[Partition]:
        """The partitions whose events are all older than `before`, oldest first."""
        return [Partition(*row) for row in await self._connection.fetch(statement("candidates"), before)]

    async def archive(self, partition: Partition, on_step: OnStep = _quiet) -> Segment:
        """Move one partition, the oldest. Raises `ArchiveRefused`, `LogDamaged`, OSError; nothing has changed then but for a file."""
        first, last = partition.first_position, partition.last_position
        while await self._connection.fetchval("SELECT emberlog.seal()") == _SEALS_A_CALL:
            pass
        if reason := await self._connection.fetchval("SELECT emberlog.archive_refusal($1, $2)", first, last):
            raise ArchiveRefused(f"the events {first} to {last} cannot be archived: {reason}")
        await self._check_requests(first, last)
        try:
            async with self._connection.transaction():
                # From before the first read to the drop nobody changes a row, though readers go on.
                await self._connection.execute(f"LOCK TABLE emberlog.{partition.name} IN SHARE MODE")
                segment = await self._write(partition, on_step)
                await on_step(partition, Step.NAMED, segment.last_position)
                await asyncio.to_thread(check_segment, self._folder, segment)
                await on_step(partition, Step.CHECKED, segment.last_position)
                await self._let_go(partition, segment, on_step)
        except asyncpg.PostgresError as error:
            if error.sqlstate == REFUSED:
                raise ArchiveRefused(str(error.args[0])) from None
            raise
        await on_step(partition, Step.MOVED, segment.last_position)
        return segment

    async def _check_requests(self, first: int, last: int) -> None:
        """That no attempt waits for an outcome, given that the view has folded all of these. Raises `ArchiveRefused`."""
        application = await connect(self._app_dsn, "archive check")
        try:
            waits = await application.fetchval(statement("open_request"), last)
        finally:
            await application.close()
        if waits:
            raise ArchiveRefused(
                f"the events {first} to {last} cannot be archived: a request among them has no outcome yet: a running gateway gives it up "
                "once its instance is gone"
            )

    async def _write(self, partition: Partition, on_step: OnStep) -> Segment:
        incarnation = await self._connection.fetchval("SELECT incarnation FROM emberlog.log_identity")
        scratch = (
            f".{incarnation}-{partition.first_position}.writing"  # of a run that was killed, the next takes it over
        )
        writer = await asyncio.to_thread(SegmentWriter, self._folder, scratch)
        try:
            after = partition.first_position - 1
            while after < partition.last_position:
                count = min(MEMBER_EVENTS, partition.last_position - after)
                events = await self._read(after, count)
                if len(events) < count:
                    raise LogDamaged(
                        after + 1,
                        f"of the events {after + 1} to {after + count} only {len(events)} are there: nothing was archived; see `emberlog log verify`",
                    )
                await asyncio.to_thread(writer.add, events)
                after += count
                await on_step(partition, Step.WRITTEN, after)
            return await asyncio.to_thread(writer.finish)
        finally:
            await asyncio.to_thread(writer.discard)

    async def _read(self, after: int, count: int) -> list[StoredEvent]:
        """The next `count` events, or those that are there, in pages: between two of them the loop serves what else waits."""
        events: list[StoredEvent] = []
        while len(events) < count and (
            rows := await self._connection.fetch(
                log_statement("read"), after + len(events), min(_PAGE, count - len(events))
            )
        ):
            events += stored_events(rows)
        return events

    async def _let_go(self, partition: Partition, segment: Segment, on_step: OnStep) -> None:
        members = segment.members
        arguments = (
            segment.first_position,
            segment.last_position,
            segment.file,
            segment.size,
            segment.sha256,
            [member.position for member in members],
            [member.offset for member in members],
            [member.sha256 for member in members],
        )
        for left in reversed(range(TRIES)):
            await self._check_requests(
                segment.first_position, segment.last_position
            )  # one parked may have been folded since
            try:
                async with self._connection.transaction():
                    await self._connection.execute(statement("archive_partition"), *arguments)
                    await self._tell(segment)
                    await on_step(partition, Step.DROPPED, segment.last_position)
            except (asyncpg.LockNotAvailableError, asyncpg.DeadlockDetectedError):
                if not left:
                    raise ArchiveRefused(
                        f"the events {segment.first_position} to {segment.last_position} are being read by a statement that takes long: "
                        "nothing was changed; run it again when that has ended"
                    ) from None
            else:
                return
            await asyncio.sleep(PAUSE_SECONDS)

    async def _tell(self, segment: Segment) -> None:
        """Append `log.archived` in the same transaction, as an instance that lives no longer than it."""
        data = LogArchived(
            first_position=segment.first_position,
            last_position=segment.last_position,
            file=segment.file,
            sha256=segment.sha256.hex(),
            at=time.time_ns() // 1000,
        )
        event = system_fact(data, segment.file, data.at)
        instance = await self._connection.fetchval("SELECT emberlog.register_instance('archive', '1 minute')")
        await self._connection.fetchrow(log_statement("append"), *encode(instance, [event]))
        await self._connection.fetchval("SELECT emberlog.fence_instance($1)", instance)


async def archive_due(owner_dsn: str, app_dsn: str, folder: Path, older_than: timedelta) -> dict[str, int]:
    """Archive every partition whose events are all older than that; returns how many segments and events moved.

    For the periodic maintenance. Raises `ArchiveRefused`, `LogDamaged`, OSError and what the database raises; what moved before stays.
    """
    archiver = await Archiver.open(owner_dsn, app_dsn, folder)
    try:
        # By the clock that dated the events, whatever this process's says.
        before = await archiver._connection.fetchval("SELECT clock_timestamp() - $1::interval", older_than)
        moved = [await archiver.archive(partition) for partition in await archiver.candidates(before)]
    finally:
        await archiver.close()
    return {"segments": len(moved), "events": sum(s.last_position - s.first_position + 1 for s in moved)}
