"""Reading the log through filters: bounded work a call, filtered in Postgres, over connections of its own."""

from __future__ import annotations

from uuid import UUID

import asyncpg
import msgspec

from adapters.postgres.event_log import READER_SETTINGS, stored_events
from adapters.postgres.pool import UNREACHABLE, Pool, open_pool
from adapters.postgres.statements import statement
from domain.ports.event_log import EventLog, LogDamaged, LogUnavailable, StoredEvent

SCAN = 50_000
"""Positions that one call looks at where few of them pass: 10 to 20 ms of Postgres where they are in its memory."""
_READ = 2_000
"""Positions that one call looks at where the filters are applied here."""
_STATEMENT_SECONDS = 10.0
_PLACE_SQL, _SCAN_SQL = statement("scan_place"), statement("scan")


class EventFilter(msgspec.Struct, frozen=True):
    """Which events pass: those in every set that is given."""

    tenants: frozenset[str] | None = None
    types: frozenset[str] | None = None
    streams: frozenset[str] | None = None

    def passes(self, event: StoredEvent) -> bool:
        """Whether the event is in every set."""
        given = ((self.tenants, event.tenant), (self.types, event.type), (self.streams, event.stream))
        return all(wanted is None or value in wanted for wanted, value in given)


class ScannedEvents(msgspec.Struct, frozen=True):
    """Every event that passed, of those up to position `reached`: go on from there."""

    events: list[StoredEvent]
    reached: int


class EventScan:
    """`log` is asked for what Postgres' own table does not hold."""

    def __init__(self, log: EventLog, pool: Pool) -> None:
        self._log = log
        self._pool = pool

    @classmethod
    async def open(cls, log: EventLog, dsn: str, *, connections: int = 2) -> EventScan:
        """Connects when it is first asked, and lets idle connections go."""
        pool = await open_pool(
            dsn,
            "event reader",
            min_size=0,
            max_size=connections,
            statement_timeout=_STATEMENT_SECONDS,
            settings=READER_SETTINGS,
        )
        return cls(log, pool)

    async def close(self) -> None:
        """Close every connection. Idempotent."""
        self._pool.terminate()

    async def place(self) -> tuple[UUID, int]:
        """The log's incarnation and the position of its newest event. Raises `LogUnavailable`."""
        [row] = await self._fetch(_PLACE_SQL)
        return UUID(bytes=row[0].bytes), int(row[1])

    async def page(self, after: int, head: int, limit: int, wanted: EventFilter, scan: int = SCAN) -> ScannedEvents:
        """Up to `limit` events behind `after` that pass, from the next `scan` positions up to `head`.

        Raises `LogUnavailable`, and what `EventLog.read` raises.
        """
        upto = min(head, after + scan)
        if upto <= after:
            return ScannedEvents([], after)
        filters = (None if f is None else sorted(f) for f in (wanted.tenants, wanted.types, wanted.streams))
        found = stored_events(await self._fetch(_SCAN_SQL, after, upto, *filters, limit))
        # Events leave the table from below: while the first position is there, so was the whole range when it was looked at.
        if await self._fetch("SELECT FROM emberlog.events WHERE position = $1::bigint + 1", after):
            if wanted == EventFilter():
                _check_dense(after, found)
            return ScannedEvents(found, found[-1].position if len(found) == limit else upto)
        read = await self._log.read(after, min(_READ, upto - after))
        passing = [event for event in read if wanted.passes(event)][:limit]
        if len(passing) == limit:
            return ScannedEvents(passing, passing[-1].position)
        if not read:
            raise LogDamaged(after + 1, f"the log has no event at position {after + 1}, though there are later ones")
        return ScannedEvents(passing, read[-1].position)

    async def _fetch(self, sql: str, *arguments: object) -> list[asyncpg.Record]:
        try:
            return await self._pool.fetch(sql, *arguments)
        except UNREACHABLE as error:
            raise LogUnavailable(f"the event log is out of reach: {type(error).__name__}") from error


def _check_dense(after: int, events: list[StoredEvent]) -> None:
    for expected, event in enumerate(events, after + 1):
        if event.position != expected:
            raise LogDamaged(expected, f"the log has no event at position {expected}, though there are later ones")
