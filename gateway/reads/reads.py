"""The reads themselves: pages of events, the usage view once it has come far enough, and where the views stand."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable, Set
from contextlib import asynccontextmanager
from datetime import datetime
from typing import cast
from uuid import UUID

import asyncpg
import msgspec
import structlog

from adapters.postgres.event_scan import EventFilter, EventScan
from adapters.postgres.pool import UNREACHABLE, Connection, Pool, open_pool
from domain.cursor import START, decode_cursor, encode_cursor
from domain.errors import GatewayError, invalid_request
from domain.events import SYSTEM_TENANT
from domain.ports.event_log import EventLog, LogDamaged, LogUnavailable, StoredEvent
from domain.tenancy import Directory, Principal
from gateway.projection_document import ProjectionDocument, projection_document
from gateway.reads.turns import Turns
from gateway.service.refusals import log_error
from projections.cursor import look
from projections.projection import ProjectionHalted
from projections.runner import ALL, Runner
from projections.usage import USAGE
from projections.usage.query import UsageReport, read_usage

_log = structlog.get_logger("emberlog.reads")
WAIT_SECONDS = 10.0
"""How long a read waits for its view to reach `after_position`."""
MAX_ROWS = 10_000
"""Rows of usage in one answer."""
_STATEMENT_SECONDS = 10.0


class EventsPage(msgspec.Struct, frozen=True):
    """Events in the log's order, and the cursor to go on from, which moves on even where no event passed the filters."""

    events: list[StoredEvent]
    cursor: str


class UsageQuery(msgspec.Struct, frozen=True):
    """Which usage: see `read_usage`. `after_position` is a cursor that the view must have reached first."""

    grain: str = "day"
    tenant: str | None = None
    agent: str | None = None
    since: datetime | None = None
    until: datetime | None = None
    after_position: str | None = None


class Reads:
    """Made by `Reads.open`; every method raises GatewayError only for what the asker can be told."""

    def __init__(self, scan: EventScan, views: Pool, runner: Runner, directory: Directory) -> None:
        self._scan = scan
        self._views = views
        self._runner = runner
        self._directory = directory
        self._turns = Turns()
        self._incarnation: UUID | None = None

    @classmethod
    async def open(cls, log: EventLog, dsn: str, runner: Runner, directory: Directory) -> Reads:
        """Connections are made when they are first needed."""
        scan = await EventScan.open(log, dsn)
        views = await open_pool(
            dsn, "view reader", min_size=0, max_size=2, statement_timeout=_STATEMENT_SECONDS, settings={"jit": "off"}
        )
        return cls(scan, views, runner, directory)

    async def close(self) -> None:
        """Close every connection. Idempotent."""
        await self._scan.close()
        self._views.terminate()

    @property
    def shredded(self) -> Set[str]:
        """The tenants whose keys were destroyed."""
        return self._directory.shredded

    async def events(self, asker: Principal, after: str, limit: int, wanted: EventFilter) -> EventsPage:
        """Up to `limit` events behind the cursor `after` (`start`, or empty: the beginning), from a bounded stretch of the log."""
        self._require_known(wanted.tenants or (), "tenants")
        with self._turns.take(asker.tenant):
            try:
                incarnation, head = await self._scan.place()
                position = 0 if after in ("", START) else _decode(after, incarnation, head, "after")
                page = await self._scan.page(position, head, limit, wanted)
            except LogUnavailable as error:
                raise log_error(error) from None
            except LogDamaged as error:
                # Which file, and what to put back, is for the operator; askers are not told positions.
                _log.error("log_damaged", position=error.position, detail=str(error))
                raise GatewayError(
                    "unavailable",
                    "the events behind `after` cannot be read until an operator has mended the log or its archive: its log says what is wrong",
                    retry_after_ms=30_000,
                ) from None
        return EventsPage(page.events, encode_cursor(incarnation, page.reached))

    async def usage(self, asker: Principal, query: UsageQuery) -> UsageReport:
        """The usage view, once it has reached `after_position`. Raises `invalid_request` for more than `MAX_ROWS` rows."""
        self._require_known(() if query.tenant is None else (query.tenant,), "tenant")
        with self._turns.take(asker.tenant):
            if query.after_position is not None:
                await self.reaches(USAGE.name, query.after_position)
            try:
                report = await read_usage(
                    self._views,
                    grain=query.grain,
                    tenant=query.tenant,
                    since=query.since,
                    until=query.until,
                    agent=query.agent,
                    limit=MAX_ROWS + 1,
                )
            except asyncpg.QueryCanceledError:
                raise GatewayError(
                    "deadline_exceeded",
                    f"reading the usage took over {_STATEMENT_SECONDS:.0f} s: ask for a shorter time or a longer grain",
                ) from None
            except UNREACHABLE:
                raise _views_unavailable() from None
        if len(report.rows) > MAX_ROWS:
            raise invalid_request(
                f"that is more than {MAX_ROWS} rows: ask for a shorter time, a longer grain or one tenant", "from"
            )
        return report

    async def projections(self, asker: Principal) -> list[ProjectionDocument]:
        """Where each view stands by the database, whichever process folds it."""
        with self._turns.take(asker.tenant):
            try:
                async with self._views.acquire() as pooled:
                    connection = cast("Connection", pooled)  # it is one for as long as it is held
                    return [projection_document(p.name, await look(connection, p)) for p in ALL]
            except UNREACHABLE:
                raise _views_unavailable() from None

    async def cursor(self, position: int) -> str:
        """The cursor of a position: what lies behind it came later. Raises `unavailable`."""
        if self._incarnation is None:
            try:
                self._incarnation, _ = await self._scan.place()
            except LogUnavailable as error:
                raise log_error(error) from None
        return encode_cursor(self._incarnation, position)

    async def position(self, cursor: str, field: str) -> int:
        """The position that a cursor stands for. Raises `invalid_cursor` naming `field`, `unavailable`."""
        try:
            return _decode(cursor, *await self._scan.place(), field)
        except LogUnavailable as error:
            raise log_error(error) from None

    def _require_known(self, tenants: Iterable[str], field: str) -> None:
        for tenant in tenants:
            if tenant not in self._directory.tenants and tenant != SYSTEM_TENANT:
                raise GatewayError("not_found", f"there is no tenant {tenant[:63]!r}", details={"field": field})

    async def reaches(self, view: str, cursor: str) -> None:
        """Wait, at most 10 s, until the view holds everything before the cursor. Raises `invalid_cursor`, `unavailable`."""
        try:
            position = _decode(cursor, *await self._scan.place(), "after_position")
            await self._runner.wait_for(view, position, WAIT_SECONDS)
        except LogUnavailable as error:
            raise log_error(error) from None
        except TimeoutError:
            raise GatewayError(
                "unavailable",
                f"the {view} view has not reached `after_position` within {WAIT_SECONDS:.0f} s: try again, or leave it out to "
                "read the view as it stands",
                retry_after_ms=1000,
            ) from None
        except ProjectionHalted:
            # Its message names positions, which tenants are not shown.
            raise GatewayError(
                "unavailable",
                f"the {view} view is halted before `after_position` until an operator has seen to it: leave `after_position` out to "
                "read it as it stands",
                retry_after_ms=30_000,
            ) from None

    @asynccontextmanager
    async def view(self, asker: Principal) -> AsyncIterator[Pool]:
        """The views, to read from in the asker's turn. Raises `unavailable`, `deadline_exceeded` for what takes over 10 s."""
        with self._turns.take(asker.tenant):
            try:
                yield self._views
            except asyncpg.QueryCanceledError:
                raise GatewayError(
                    "deadline_exceeded", f"reading the view took over {_STATEMENT_SECONDS:.0f} s: ask for less"
                ) from None
            except UNREACHABLE:
                raise _views_unavailable() from None


def _views_unavailable() -> GatewayError:
    return GatewayError("unavailable", "the views cannot be reached: try again shortly", retry_after_ms=1000)


def _decode(cursor: str, incarnation: UUID, head: int, field: str) -> int:
    try:
        return decode_cursor(cursor, incarnation, head)
    except GatewayError as refusal:
        raise GatewayError(refusal.code, refusal.message, details={"field": field}) from None
