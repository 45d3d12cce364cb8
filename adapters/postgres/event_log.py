"""The event log in Postgres: appends over one connection of their own, reads over a small pool."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any, Self
from uuid import UUID

import asyncpg

from adapters.archive.reader import ArchiveReader
from adapters.postgres.batch import decode, encode
from adapters.postgres.pool import UNREACHABLE, Connection, Pool, RoleMissing, connect, open_pool
from adapters.postgres.statements import statement
from domain.ports.event_log import (
    Appended,
    AppendStatus,
    InstanceFenced,
    LogDamaged,
    LogIdentity,
    LogUnavailable,
    NewEvent,
    StoredEvent,
)

FENCED = "EL001"
_CHECK_VIOLATION = "23514"
_ITEM_CLASSES = ("22", "54")
"""SQLSTATE classes that blame the data: data exception, program limit (nesting, size of an index row)."""
_APPEND_SECONDS = 10.0
"""An append takes milliseconds and waits at most 5 s for the lock; a server that has not answered by then is not well."""
_EPOCH_2000 = 946_684_800_000_000
"""Microseconds from 1970 to 2000, where Postgres counts from."""
READER_SETTINGS = {
    "enable_seqscan": "off",
    "enable_bitmapscan": "off",
    "jit": "off",
    "max_parallel_workers_per_gather": "0",
}
"""Every read is an index range: a plan cached while a partition was empty must not scan it once it is full."""


class PostgresEventLog:
    """Implements `domain.ports.event_log.EventLog`. `pool` is for other statements of the application."""

    def __init__(self, dsn: str, pool: Pool, readers: Pool, archive_dir: Path | None = None) -> None:
        self.pool = pool
        self._dsn = dsn
        self._readers = readers
        self._append_sql = statement("append")
        self._read_sql = statement("read")
        self._read_decisions_sql = statement("read_decisions")
        self._find_sql = statement("find")
        self._archive = ArchiveReader(partial(self._fetch, readers), archive_dir)
        self._appending = asyncio.Lock()
        self._connection: Connection | None = None
        self._statement: asyncpg.prepared_stmt.PreparedStatement[asyncpg.Record] | None = None

    @classmethod
    async def connect(cls, dsn: str, *, pool_size: int = 4, readers: int = 2, archive_dir: Path | None = None) -> Self:
        """Open the pools and make the partitions that are needed next. Raises `LogUnavailable`, `RoleMissing`.

        `archive_dir` is where the segments of archived events lie; without it reading those raises `LogDamaged`.
        """
        pool = reading = None
        try:
            pool = await open_pool(dsn, "gateway", max_size=pool_size)
            reading = await open_pool(dsn, "log reader", max_size=readers, settings=READER_SETTINGS)
            await pool.fetchval("SELECT emberlog.ensure_partitions()")
        except BaseException as error:
            for opened in (pool, reading):
                if opened is not None:
                    opened.terminate()
            if isinstance(error, UNREACHABLE):
                raise _unavailable(error) from error
            raise
        return cls(dsn, pool, reading, archive_dir)

    async def close(self) -> None:
        """Close every connection; an append under way ends as `LogUnavailable`. Idempotent."""
        self._disconnect()
        self._readers.terminate()
        self.pool.terminate()

    async def identity(self) -> LogIdentity:
        """See `EventLog.identity`."""
        [row] = await self._fetch(self.pool, "SELECT installation, incarnation FROM emberlog.log_identity")
        return LogIdentity(UUID(bytes=row[0].bytes), UUID(bytes=row[1].bytes))

    # -- appending --------------------------------------------------------------------------------------------------

    async def append(self, instance: UUID, events: Sequence[NewEvent]) -> list[Appended]:
        """See `EventLog.append`. A batch that Postgres cannot take is halved until the events at fault stand alone."""
        if not events:
            return []
        async with self._appending:
            return await self._append(instance, events)

    async def _append(self, instance: UUID, events: Sequence[NewEvent]) -> list[Appended]:
        try:
            row = await self._send(encode(instance, events))
        except (ValueError, asyncpg.DataError) as error:
            refusal = _refusal(error)
        except asyncpg.PostgresError as error:
            if error.sqlstate == FENCED:
                raise InstanceFenced(f"instance {instance} is fenced: stop, and register a new one") from error
            if error.sqlstate != _CHECK_VIOLATION and (error.sqlstate or "")[:2] not in _ITEM_CLASSES:
                raise _unavailable(error) from error
            refusal = _refusal(error)
        else:
            return decode(len(events), *row)
        if len(events) == 1:
            return [Appended(AppendStatus.REJECTED, detail=refusal)]
        half = len(events) // 2
        return await self._append(instance, events[:half]) + await self._append(instance, events[half:])

    async def _send(self, arguments: tuple[Any, ...]) -> Any:
        try:
            prepared = self._statement
            if prepared is None or self._connection is None or self._connection.is_closed():
                prepared = await self._prepare()
            return await prepared.fetchrow(*arguments, timeout=_APPEND_SECONDS + 2)
        except asyncpg.PostgresConnectionError as error:
            self._disconnect()
            raise _unavailable(error) from error
        except (asyncpg.PostgresError, ValueError):
            raise
        except (OSError, TimeoutError, asyncpg.InterfaceError, asyncpg.InternalClientError, RoleMissing) as error:
            self._disconnect()
            raise _unavailable(error) from error

    async def _prepare(self) -> asyncpg.prepared_stmt.PreparedStatement[asyncpg.Record]:
        """The append on a new connection. Whatever Postgres has against it is no fault of the events."""
        try:
            self._connection = await connect(self._dsn, "log appender", statement_timeout=_APPEND_SECONDS)
            await self._connection.execute(statement("durable"))
            self._statement = await self._connection.prepare(self._append_sql)
        except asyncpg.PostgresError as error:
            self._disconnect()
            raise _unavailable(error) from error
        return self._statement

    def _disconnect(self) -> None:
        if self._connection is not None:
            self._connection.terminate()
        self._connection = self._statement = None

    # -- reading ----------------------------------------------------------------------------------------------------

    async def read(self, after: int, limit: int) -> list[StoredEvent]:
        """See `EventLog.read`. Archived events are read from their segments, the others from the table."""
        events: list[StoredEvent] = []
        while (rest := limit - len(events)) > 0:
            if after < self._archive.upto:
                events += (archived := await self._archive.read(after, rest))
                after, rest = after + len(archived), rest - len(archived)
            page = stored_events(await self._fetch(self._readers, self._read_sql, after, rest)) if rest else []
            if page and page[0].position == after + 1:
                if page[-1].position != after + len(page):
                    raise _gap(next(at for at, event in enumerate(page, after + 1) if event.position != at))
                return events + page
            # The table does not have what comes next: it is not written yet, or was archived since it was last asked for.
            if rest and not await self._archive.holds(after + 1):
                if page:
                    raise _gap(after + 1)
                break
        return events

    async def read_decisions(self, after: int, limit: int) -> list[StoredEvent]:
        """See `EventLog.read_decisions`."""
        return stored_events(await self._fetch(self._readers, self._read_decisions_sql, after, limit))

    async def find(self, keys: Sequence[bytes]) -> dict[bytes, StoredEvent]:
        """See `EventLog.find`."""
        rows = await self._fetch(self._readers, self._find_sql, list(keys))
        return dict(zip((row[10] for row in rows), stored_events([tuple(row)[:10] for row in rows]), strict=True))

    async def head(self) -> int:
        """See `EventLog.head`."""
        [row] = await self._fetch(self._readers, "SELECT position FROM emberlog.head()")
        return int(row[0])

    # -- instances --------------------------------------------------------------------------------------------------

    async def register_instance(self, description: str, lease_seconds: float) -> UUID:
        """See `EventLog.register_instance`."""
        lease = timedelta(seconds=lease_seconds)
        [row] = await self._fetch(self.pool, "SELECT emberlog.register_instance($1, $2)", description, lease)
        return UUID(bytes=row[0].bytes)

    async def renew_instance(self, instance: UUID, lease_seconds: float) -> None:
        """See `EventLog.renew_instance`."""
        lease = timedelta(seconds=lease_seconds)
        [row] = await self._fetch(self.pool, "SELECT emberlog.renew_instance($1, $2)", instance, lease)
        if not row[0]:
            raise InstanceFenced(f"instance {instance} is fenced: stop, and register a new one")

    async def fence_instance(self, instance: UUID) -> int:
        """See `EventLog.fence_instance`."""
        [row] = await self._fetch(self.pool, "SELECT emberlog.fence_instance($1)", instance)
        return int(row[0])

    async def fenced(self, instance: UUID) -> bool:
        """See `EventLog.fenced`."""
        alive = "SELECT EXISTS (SELECT FROM emberlog.instances WHERE id = $1 AND fenced_at IS NULL)"
        [row] = await self._fetch(self.pool, alive, instance)
        return not row[0]

    async def fence_expired(self) -> list[UUID]:
        """See `EventLog.fence_expired`."""
        return [UUID(bytes=row[0].bytes) for row in await self._fetch(self.pool, "SELECT emberlog.fence_expired()")]

    async def ensure_partitions(self) -> int:
        """Make the partitions needed next; returns how many were made. Run at start and periodically."""
        [row] = await self._fetch(self.pool, "SELECT emberlog.ensure_partitions()")
        return int(row[0])

    async def drop_old_dedupe_keys(self) -> int:
        """Drop the partitions of dedupe keys of days before yesterday; returns how many. Run daily."""
        [row] = await self._fetch(self.pool, "SELECT emberlog.drop_old_dedupe_keys()")
        return int(row[0])

    async def _fetch(self, pool: Pool, sql: str, *arguments: Any) -> list[asyncpg.Record]:
        try:
            return await pool.fetch(sql, *arguments)
        except UNREACHABLE as error:
            raise _unavailable(error) from error


def stored_events(rows: Sequence[Any]) -> list[StoredEvent]:
    """Events of rows whose columns are those of `read.sql`."""
    number = int.from_bytes
    return [
        StoredEvent(p, e, tenant, stream, v, kind, schema, number(at, "big", signed=True) + _EPOCH_2000, data, digest)
        for p, e, tenant, stream, v, kind, schema, at, data, digest in rows
    ]


def _gap(missing: int) -> LogDamaged:
    return LogDamaged(
        missing,
        f"the log has no event at position {missing}, though there are later ones, which no append leaves: it was changed by "
        "hand; see `emberlog log verify`, and restore it from a backup",
    )


def _unavailable(error: BaseException) -> LogUnavailable:
    return LogUnavailable(f"the event log is out of reach: {type(error).__name__}: {_message(error)}")


def _message(error: BaseException) -> str:
    """Postgres's message alone; `str` of its errors adds the detail, which may quote a row."""
    return str(error.args[0]) if error.args else ""


def _refusal(error: Exception) -> str:
    """Why an event's data was refused, without repeating any of it: Postgres's detail and context quote the data, its message does not."""
    if isinstance(error, asyncpg.PostgresError) and error.sqlstate is not None and error.__cause__ is None:
        return f"{error.sqlstate}: " + _message(error).partition(': "')[0]
    if isinstance(error, UnicodeError):
        return "the event's data is not UTF-8"
    return "a value of the event cannot be stored: expected text without lone surrogates or U+0000, and ids of 16 bytes"
