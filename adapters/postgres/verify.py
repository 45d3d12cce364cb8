"""Verification of the whole log: every event against its content hash, every seal against its events, the chain of seals.

Hashes are computed here and not by the database, whose functions its owner could replace.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable

from adapters.postgres.pool import Pool
from adapters.postgres.statements import statement
from domain.ports.event_log import EventLog, LogDamaged, StoredEvent
from domain.seals import SEAL_EVENTS, Seal, SealedRange, chain_start
from domain.verification import Damage, Finding, Verdict, check_events, check_seal

_PAGE = 1000
_SEALS_SQL = statement("verify_seals")


async def verify(
    pool: Pool,
    log: EventLog,
    *,
    start: int = 1,
    noted: bytes | None = None,
    progress: Callable[[int, int], None] = lambda _position, _head: None,
) -> Verdict:
    """Walk the log, archived events too, up to its head as of the call; the verdict names the first thing wrong.

    Events below `start` are not looked at, but for those in the seal that holds it; the chain of seals always is. `noted` is the hash of
    a seal that must occur. `progress` is told the position reached and the head. `pool` is of the database that `log` is in.
    Raises `LogUnavailable` and what the pool raises.
    """
    return await _Walk(pool, log, start, noted, progress).run()


class _Walk:
    def __init__(
        self, pool: Pool, log: EventLog, start: int, noted: bytes | None, progress: Callable[[int, int], None]
    ) -> None:
        self._pool = pool
        self._log = log
        self._start = start
        self._noted = noted
        self._progress = progress
        self._head = 0
        self._last_at: int | None = None
        """The time of the event before the next range, where it was looked at."""
        self._events = 0
        self._seals = 0
        self._newest: Seal | None = None

    async def run(self) -> Verdict:
        # The seals first: what they cover lies below the head that is asked for afterwards.
        newest = await self._pool.fetchval("SELECT coalesce(max(number), 0) FROM emberlog.seals")
        self._head = await self._log.head()
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
        origin = chain_start((await self._log.identity()).installation)
        noted = self._noted is None
        async for seal in self._read_seals(newest):
            before = self._newest
            noted = noted or seal.hash == self._noted
            if finding := check_seal(seal, before, origin):
                # A seal in doubt says nothing of its events. Where these show by themselves what was changed, that comes first.
                first = before.last_position + 1 if before else 1
                return await self._range(max(first, self._start), min(first + SEAL_EVENTS - 1, self._head)) or finding
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
            last = min(first + SEAL_EVENTS - 1, self._head)
            if finding := await self._range(first, last):
                return finding
            first = last + 1
        return None

    async def _range(self, first: int, last: int, seal: Seal | None = None) -> Finding | None:
        if first > last:
            return None
        events, damage = await self._read(first, last)
        finding = check_events(events, first, last, self._last_at, seal)
        if finding is None:
            self._last_at = events[-1].recorded_at
            self._events += len(events)
            self._progress(last, self._head)
        elif damage is not None and finding.damage is Damage.EVENT_MISSING:
            return Finding(Damage.EVENT_MISSING, str(damage), damage.position)
        return finding

    async def _read(self, first: int, last: int) -> tuple[list[StoredEvent], LogDamaged | None]:
        """The events of a range up to the first that is missing, and why that one is."""
        events: list[StoredEvent] = []
        while (after := first + len(events) - 1) < last:
            try:
                page = await self._log.read(after, min(_PAGE, last - after))
            except LogDamaged as error:
                if error.position > after + 1:
                    events += await self._log.read(after, error.position - after - 1)
                return events, error
            if not page:
                break
            events += page
        return events, None

    async def _read_seals(self, newest: int) -> AsyncIterator[Seal]:
        after = 0
        while rows := await self._pool.fetch(_SEALS_SQL, after, newest, self._start):
            for row in rows:
                yield Seal(*row)
            after = rows[-1][0]
