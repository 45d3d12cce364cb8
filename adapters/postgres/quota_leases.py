"""Leases of quotas in Postgres, which alone grants them: taken, returned, counted from the log where their instance has died."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date
from typing import Any

import asyncpg
import msgspec

from adapters.postgres.event_log import FENCED
from adapters.postgres.pool import UNREACHABLE, Pool
from adapters.postgres.statements import statement
from domain.ports.event_log import InstanceFenced, LogUnavailable
from domain.quota_lease import Answer, Ask

_LEASE, _UNCLOSED, _DRIFT, _RECOUNT, _COUNT, _PRUNE, _WINDOWS = (
    statement(f"quota_{name}") for name in ("lease", "unclosed", "drift", "recount", "count", "prune", "windows")
)
_CLOSED_AT_ONCE = 100


class Window(msgspec.Struct, frozen=True):
    """A window of a quota and what all gateways together hold and have used of it. `used` may be a second old."""

    tenant: str
    scope: str
    subject: str
    unit: str
    period: str
    limit_value: int
    hard: bool
    limit_position: int
    granted: int
    used: int


class Drift(msgspec.Struct, frozen=True):
    """An instance's lease that the log contradicts, by `off` of its unit."""

    tenant: str
    scope: str
    subject: str
    unit: str
    period: str
    limit_position: int
    instance: str
    off: int


async def lease(pool: Pool, instance: str, serial: int, asks: Sequence[Ask]) -> list[Answer]:
    """Tell and ask for all of them at once; the answers in their order. Each call of an instance has a larger `serial` than the last.

    Raises `InstanceFenced`; `LogUnavailable` where nobody knows what became of it.
    """
    leases = [ask.lease for ask in asks]
    try:
        rows = await pool.fetch(
            _LEASE,
            instance,
            serial,
            [x.tenant for x in leases],
            [x.key.scope for x in leases],
            [x.key.subject for x in leases],
            [x.key.unit for x in leases],
            [x.period for x in leases],
            [x.limit for x in leases],
            [x.hard for x in leases],
            [ask.position for ask in asks],
            [x.since for x in leases],
            [ask.holds for ask in asks],
            [ask.used for ask in asks],
            [ask.need for ask in asks],
            [ask.least for ask in asks],
            [ask.extra for ask in asks],
        )
    except asyncpg.PostgresError as error:
        if error.sqlstate == FENCED:
            raise InstanceFenced(f"instance {instance} is fenced: it is granted nothing more") from error
        raise _away(error) from error
    except UNREACHABLE as error:
        raise _away(error) from error
    answers: list[Answer | None] = [None] * len(asks)
    for item, *values in rows:
        answers[item - 1] = Answer(values[0], *values[1:])
    assert None not in answers
    return [answer for answer in answers if answer is not None]


async def unclosed(pool: Pool, since: int) -> tuple[int, list[str]]:
    """Instances fenced at a head of `since` or later that are to be closed, and the position to ask from once they are.

    Raises `LogUnavailable`.
    """
    rows = await _fetch(pool, _UNCLOSED, since, _CLOSED_AT_ONCE)
    if not rows:
        return since, []
    found = [row["instance"] for row in rows if row["instance"] is not None]
    return (since if len(rows) == _CLOSED_AT_ONCE else rows[0]["position"]), found


async def close_instance(pool: Pool, instance: str) -> bool:
    """Make its leases what the log says it used; whether that is done, by whomever. Raises `LogUnavailable`."""
    [row] = await _fetch(pool, "SELECT quota.close_instance($1)", instance)
    return bool(row[0])


async def drift(pool: Pool, since: date) -> list[Drift]:
    """Where leases and log disagree, in the windows of the days from `since` on and the months they lie in. Raises `LogUnavailable`."""
    return [msgspec.convert(dict(row), Drift) for row in await _fetch(pool, _DRIFT, since)]


async def recount(pool: Pool, since: date) -> int:
    """Count what gateways of a release before quotas used from that day on; returns how many windows. Raises `LogUnavailable`."""
    [row] = await _fetch(pool, _RECOUNT, since)
    return int(row[0])


async def count_window(pool: Pool, found: Drift) -> None:
    """Count into a window's leases what the log says was used of it beyond them. Raises `LogUnavailable`."""
    await _fetch(pool, _COUNT, found.tenant, found.scope, found.subject, found.unit, found.period)


async def prune(pool: Pool, before: date) -> int:
    """Forget windows that ended before that day; returns how many. Raises `LogUnavailable`."""
    [row] = await _fetch(pool, _PRUNE, before)
    return int(row[0])


async def windows(pool: Pool, periods: Sequence[str]) -> list[Window]:
    """The windows of these periods that any gateway has held a lease of. Raises `LogUnavailable`."""
    return [Window(*row) for row in await _fetch(pool, _WINDOWS, list(periods))]


async def _fetch(pool: Pool, sql: str, *arguments: Any) -> list[asyncpg.Record]:
    try:
        return await pool.fetch(sql, *arguments)
    except UNREACHABLE as error:
        raise _away(error) from error


def _away(error: BaseException) -> LogUnavailable:
    return LogUnavailable(f"the quotas' leases are out of reach: {type(error).__name__}")
