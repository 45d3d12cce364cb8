"""Scheduled work as people see it: how each task of the installation stands, and a run of it now."""

from __future__ import annotations

import re
from datetime import UTC, datetime

import msgspec

from adapters.postgres import maintenance
from adapters.postgres.maintenance import Schedule
from adapters.postgres.pool import UNREACHABLE, Pool
from domain.errors import GatewayError

_NAME = re.compile(r"[a-z][a-z0-9_]{0,63}")
"""What a task is called: Postgres need not be asked for anything else, of which it cannot read all."""
RUNNING, DUE, WAITING, OFF = "running", "due", "waiting", "off"


class LastRun(msgspec.Struct, frozen=True):
    """The last run that ended: what it did in numbers, or the error that ended it; `ms` is how long it took."""

    ended_at: str
    ms: int | None
    result: dict[str, int] | None
    error: str | None


class ScheduleDocument(msgspec.Struct, frozen=True):
    """A task of the installation. `state` is `running`, `due` (whichever gateway asks next runs it), `waiting`, or `off`: it has no period and
    is run when it is asked for. `holder` is the gateway instance that runs it, until `lease_until` unless it says more; `failures` are the
    failed runs since the last good one. Times are the database's.
    """

    name: str
    state: str
    period_seconds: int | None
    next_run_at: str | None
    holder: str | None
    lease_until: str | None
    last_run: LastRun | None
    last_succeeded_at: str | None
    failures: int
    url: str


class Schedules:
    """Reads and asks through a pool of the application's role."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool

    async def all(self) -> list[ScheduleDocument]:
        """Every task that a gateway of the installation has asked for, by name. Raises `unavailable`."""
        return [_document(schedule) for schedule in await self._read(None)]

    async def one(self, name: str) -> ScheduleDocument:
        """One. Raises `not_found`, `unavailable`."""
        found = await self._read(name) if _NAME.fullmatch(name) else []
        if not found:
            known = ", ".join(schedule.task for schedule in await self._read(None))
            raise GatewayError(
                "not_found",
                f"there is no schedule {name[:64]!r}: "
                + (f"there are {known}" if known else "no gateway of this installation has run yet"),
                details={"field": "name"},
            )
        return _document(found[0])

    async def run(self, name: str) -> ScheduleDocument:
        """Make it due at once, unless it is being run; how it stands then. Raises `not_found`, `unavailable`."""
        if _NAME.fullmatch(name):
            try:
                await maintenance.run_now(self._pool, name)
            except UNREACHABLE as error:
                raise _unavailable() from error
        return await self.one(name)

    async def _read(self, name: str | None) -> list[Schedule]:
        try:
            return await maintenance.schedules(self._pool, name)
        except UNREACHABLE as error:
            raise _unavailable() from error


def _document(schedule: Schedule) -> ScheduleDocument:
    last = None
    if schedule.last_ended_at is not None:
        ms = None if schedule.last_took is None else round(schedule.last_took.total_seconds() * 1000)
        last = LastRun(_text(schedule.last_ended_at), ms, schedule.last_result, schedule.last_error)
    return ScheduleDocument(
        name=schedule.task,
        state=RUNNING if schedule.running else DUE if schedule.due else OFF if schedule.never else WAITING,
        period_seconds=None if schedule.period is None else round(schedule.period.total_seconds()),
        next_run_at=None if schedule.never else _text(schedule.next_run_at),
        holder=str(schedule.owner) if schedule.running else None,
        lease_until=_text(schedule.lease_until) if schedule.running else None,
        last_run=last,
        last_succeeded_at=None if schedule.last_succeeded_at is None else _text(schedule.last_succeeded_at),
        failures=schedule.failures,
        url=f"/api/v1/schedules/{schedule.task}",
    )


def _text(time: datetime) -> str:
    return time.astimezone(UTC).isoformat().replace("+00:00", "Z")


def _unavailable() -> GatewayError:
    return GatewayError("unavailable", "the database cannot be reached: try again shortly", retry_after_ms=1000)
