"""Making a log of an export, in one transaction: the whole log is there afterwards, or nothing."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any, BinaryIO
from uuid import UUID

import asyncpg
import msgspec

from adapters.archive.dedupe import dedupe_key
from adapters.archive.import_lines import ExportReader, ImportRefused
from adapters.archive.statements import statement
from adapters.postgres.event_log import READER_SETTINGS
from adapters.postgres.pool import Connection, connect
from adapters.postgres.statements import statement as log_statement
from domain.ports.event_log import StoredEvent

_COLUMNS = (
    "position", "event_id", "tenant", "stream", "version", "type", "schema_version", "recorded_at", "data", "content_hash",
)  # fmt: skip
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_DAY_MICROS = 86_400_000_000
_REFUSED_CLASSES = ("22", "23", "54")
"""SQLSTATE classes that blame the data."""


class Imported(msgspec.Struct, frozen=True):
    """What an import made: the log is the source's `installation`, of a new `incarnation`. `keys` counts tenants' keys."""

    events: int
    keys: int
    installation: UUID
    incarnation: UUID


async def import_log(
    owner_dsn: str, source: BinaryIO, on_progress: Callable[[int, int], None] = lambda done, of: None
) -> Imported:
    """Make an empty log the one that `source` holds: positions, ids, times and hashes stay, cursors of the source are refused.

    `on_progress` is told how many events of how many are in. Raises `ImportRefused` at the first line that is wrong, with nothing
    imported, and what the database raises.
    """
    reader = await asyncio.to_thread(ExportReader, source)
    settings = READER_SETTINGS | {"idle_in_transaction_session_timeout": "0"}  # the source may be slow
    connection = await connect(owner_dsn, "import", role=False, statement_timeout=0, settings=settings)
    try:
        await connection.execute(log_statement("durable"))
        async with connection.transaction():
            return await _Import(connection, reader, on_progress).run()
    finally:
        await connection.close()


class _Import:
    def __init__(self, connection: Connection, reader: ExportReader, on_progress: Callable[[int, int], None]) -> None:
        self._connection = connection
        self._reader = reader
        self._on_progress = on_progress
        self._keep_from = 0
        self._days: set[int] = set()

    async def run(self) -> Imported:
        await self._check_empty()
        yesterday = await self._connection.fetchval("SELECT emberlog.log_day(NULL) - 1")
        self._keep_from = yesterday * _DAY_MICROS
        count = 0
        while True:
            line, events = await asyncio.to_thread(self._reader.batch)
            if not events:
                break
            await self._events(line, events)
            await self._dedupe_keys(events)
            count = events[-1].position
            self._on_progress(count, self._reader.header.last)
        await self._keys()
        if wrong := await self._connection.fetchval(statement("restore_streams")):
            raise ImportRefused(
                f"the versions of the stream {wrong[:80]!r} do not count up from 1. Nothing was imported"
            )
        await self._connection.execute(statement("restore_instances"))
        await self._connection.execute("SELECT emberlog.ensure_partitions()")
        incarnation = await self._connection.fetchval(
            "UPDATE emberlog.log_identity SET installation = $1, incarnation = gen_random_uuid() RETURNING incarnation",
            self._reader.header.installation,
        )
        return Imported(count, len(self._reader.keys), self._reader.header.installation, UUID(bytes=incarnation.bytes))

    async def _check_empty(self) -> None:
        if not await self._connection.fetchval("SELECT has_schema_privilege('emberlog', 'CREATE')"):
            raise ImportRefused(
                "only the owner of the schema may import: set EMBERLOG_DATABASE_OWNER_URL to the owner's login"
            )
        await self._connection.execute("SET LOCAL lock_timeout = '5s'; SELECT emberlog.lock_log()")
        if reason := await self._connection.fetchval(statement("import_refusal")):
            raise ImportRefused(f"{reason}. Nothing was imported")

    async def _events(self, line: int, events: list[StoredEvent]) -> None:
        first, last = events[0].position, events[-1].position
        await self._connection.execute("SELECT emberlog.ensure_partitions(p_reach => $1)", last)
        try:
            await self._connection.copy_records_to_table(
                "events", schema_name="emberlog", columns=_COLUMNS, records=map(_record, events)
            )
        except asyncpg.PostgresError as error:
            if (error.sqlstate or "")[:2] not in _REFUSED_CLASSES:
                raise
            found = re.search(r"COPY \w+, line (\d+)", error.context or "")
            raise self._reader.refused(
                f"Postgres does not take the event: {str(error.args[0]).partition(': ')[0]}",
                line + int(found[1]) - 1 if found else line,
            ) from None
        except (ValueError, OverflowError) as error:
            raise self._reader.refused(
                f"a value of an event from here on cannot be stored: {type(error).__name__}", line
            ) from None
        # What was checked is the text of the line. What counts is what Postgres has made of it.
        if (wrong := await self._connection.fetchval(statement("first_wrong_hash"), first, last)) is not None:
            raise self._reader.refused(
                f"the event at position {wrong} is not as it was written: Postgres writes its data otherwise",
                line + wrong - first,
            )

    async def _dedupe_keys(self, events: list[StoredEvent]) -> None:
        recent = [event for event in events if event.recorded_at >= self._keep_from]
        if not recent:
            return
        records = [
            (event.recorded_at // _DAY_MICROS, UUID(bytes=key), event.position, fingerprint)
            for event, (key, fingerprint) in ((event, dedupe_key(event)) for event in recent)
        ]
        for day in sorted({record[0] for record in records} - self._days):
            self._days.add(day)
            name = f"emberlog.dedupe_keys_{day:d}"
            if await self._connection.fetchval("SELECT to_regclass($1) IS NULL", name):
                await self._connection.execute(f"CREATE TABLE {name} (LIKE emberlog.dedupe_keys INCLUDING INDEXES)")
                await self._connection.execute(
                    f"ALTER TABLE emberlog.dedupe_keys ATTACH PARTITION {name} FOR VALUES IN ({day:d})"
                )
        await self._connection.execute(statement("restore_dedupe_keys"), *map(list, zip(*records, strict=True)))

    async def _keys(self) -> None:
        for key in self._reader.keys:
            try:
                record = (key.tenant_key, key.wrapped, _time(key.created_at), _time(key.shredded_at))
                await self._connection.copy_records_to_table(
                    "tenant_keys",
                    schema_name="emberlog",
                    columns=("tenant", "wrapped", "created_at", "shredded_at"),
                    records=[record],
                )
            except (asyncpg.PostgresError, ValueError, OverflowError) as error:
                if isinstance(error, asyncpg.PostgresError) and (error.sqlstate or "")[:2] not in _REFUSED_CLASSES:
                    raise
                raise ImportRefused(
                    f"the key of tenant {key.tenant_key[:63]!r} cannot be stored: {type(error).__name__}. Nothing was imported"
                ) from None


def _time(micros: int | None) -> datetime | None:
    return None if micros is None else _EPOCH + timedelta(microseconds=micros)


def _record(event: StoredEvent) -> tuple[Any, ...]:
    return (
        event.position, UUID(bytes=event.event_id), event.tenant, event.stream, event.version, event.type, event.schema_version,
        _time(event.recorded_at), event.data.decode(), event.content_hash,
    )  # fmt: skip
