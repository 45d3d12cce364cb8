"""Verification of the whole log: every event against its content hash, every seal against its events, the chain of seals."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from typing import Any
from uuid import UUID

from adapters.postgres.event_log import READER_SETTINGS
from adapters.postgres.pool import Connection, connect
from adapters.postgres.statements import statement
from domain.ports.event_log import EventLog, LogDamaged, StoredEvent
from domain.seals import Seal, SealedRange, chain_start
from domain.verification import Damage, Digest, Finding, Verdict, check_events, check_seal, digest

_RANGE = 10_000
_PAGE = 1000


async def verify(
    dsn: str,
    log: EventLog,
    *,
    start: int = 1,
    noted: bytes | None = None,
    progress: Callable[[int, int], None] = lambda _position, _head: None,
) -> Verdict:
    """Walk the log up to its head as of the call; the verdict names the first thing wrong.

    Events below `start` are not looked at, but for those in the seal that holds it; the chain of seals always is. `noted` is the hash of
    a seal that must occur. `progress` is told the position reached and the head. Archived events are read through `log`.
    Raises what the database raises.
    """
    connection = await connect(dsn, "log verify", statement_timeout=0, settings=READER_SETTINGS)
    try:
        return await _Walk(connection, log, start, noted, progress).run()
    finally:
        await connection.close()


class _Walk:
    def __init__(
        self,
        connection: Connection,
        log: EventLog,
        start: int,
        noted: bytes | None,
        progress: Callable[[int, int], None],
    ) -> None:
        self._connection = connection
        self._log = log
        self._start = start
        self._noted = noted
        self._progress = progress
        self._head = 0
        self._floor = 0
        self._last_at: int | None = None
        """The time of the event before the next range, where it was looked at."""
        self._events = 0
        self._seals = 0
        self._newest: Seal | None = None

    async def run(self) -> Verdict:
        # The seals first: what they cover lies below the head that is asked for afterwards.
        newest = await self._connection.fetchval("SELECT coalesce(max(number), 0) FROM emberlog.seals")
        self._head = await self._connection.fetchval("SELECT position FROM emberlog.head()")
        await self._look_for_floor()
        finding = await self._sealed(newest) or await self._rest()
        seal = self._newest
        shown = SealedRange(seal.number, seal.first_position, seal.last_position, seal.hash) if seal else None
        return Verdict(
            intact=finding is None,
            finding=finding,
            head=self._head,
            events=self._events,
            seals=self._seals,
            unsealed=max(0, self._head - (seal.last_position if seal else 0)),
            newest_seal=shown,
        )

    async def _sealed(self, newest: int) -> Finding | None:
        """The seals in order, each with its events."""
        installation = await self._connection.fetchval("SELECT installation FROM emberlog.log_identity")
        genesis = chain_start(UUID(bytes=installation.bytes))
        noted = self._noted is None
        async for seal in self._read_seals(newest):
            before = self._newest
            noted = noted or seal.hash == self._noted
            if finding := check_seal(seal, before, genesis):
                # A seal in doubt says nothing of its events. Where these show by themselves what was changed, that comes first.
                first = before.last_position + 1 if before else 1
                return await self._range(max(first, self._start), min(first + _RANGE - 1, self._head)) or finding
            if seal.last_position >= self._start and (
                finding := await self._range(seal.first_position, seal.last_position, seal)
            ):
                return finding
            self._newest = seal
            self._seals += 1
        if noted:
            return None
        message = "the seal that was noted does not occur: the chain was cut short or made anew, or this is another log"
        return Finding(Damage.CHAIN_CUT, message)

    async def _rest(self) -> Finding | None:
        """The events that have no seal yet."""
        first = max(self._start, self._newest.last_position + 1 if self._newest else 1)
        while first <= self._head:
            last = min(first + _RANGE - 1, self._head)
            if finding := await self._range(first, last):
                return finding
            first = last + 1
        return None

    async def _range(self, first: int, last: int, seal: Seal | None = None) -> Finding | None:
        if first > last:
            return None
        found, damage = await self._digest(first, last)
        finding = check_events(found, first, last, self._last_at, seal)
        if finding is not None and finding.damage is Damage.EVENT_MISSING:
            if damage is not None:
                finding = Finding(Damage.EVENT_MISSING, str(damage), damage.position)
            elif await self._look_for_floor() and first < self._floor:
                return await self._range(first, last, seal)  # it was archived meanwhile
        if finding is None:
            self._last_at = found.last_at
            self._events += found.count
            self._progress(last, self._head)
        return finding

    async def _digest(self, first: int, last: int) -> tuple[Digest, LogDamaged | None]:
        if first >= self._floor:
            row = await self._connection.fetchrow(_RANGE_SQL, first, last)
            return Digest(*_values(row)), None
        events: list[StoredEvent] = []
        damage = None
        while (after := first + len(events) - 1) < last:
            try:
                page = await self._log.read(after, min(_PAGE, last - after))
            except LogDamaged as error:
                damage = error
                page = await self._log.read(after, error.position - after - 1) if error.position > after + 1 else []
            events += page
            if damage is not None or not page:
                break
        return digest(events, first), damage

    async def _look_for_floor(self) -> bool:
        """Ask which events are still in the database; whether that has changed."""
        floor = await self._connection.fetchval(_FLOOR_SQL) or 0
        changed, self._floor = floor != self._floor, floor
        return changed

    async def _read_seals(self, newest: int) -> AsyncIterator[Seal]:
        after = 0
        while rows := await self._connection.fetch(_SEALS_SQL, after, newest, self._start):
            for row in rows:
                yield Seal(*_values(row))
            after = rows[-1][0]


_RANGE_SQL = statement("verify_range")
_SEALS_SQL = statement("verify_seals")
_FLOOR_SQL = statement("live_floor")


def _values(row: Any) -> tuple[Any, ...]:
    return tuple(row)
