"""The periodic tasks of an installation as the database keeps them: taken by lease, renewed, ended; all times are its own."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

import msgspec

from adapters.postgres.pool import Pool
from adapters.postgres.statements import statement

_STATE, _SWEEP, _LIST = statement("maintenance_state"), statement("sweep_instances"), statement("maintenance_list")


class TaskState(msgspec.Struct, frozen=True):
    """How a task stands. `failures` counts the failed runs since the last good one; `last_error` is that of the last run."""

    next_run_at: datetime
    fence: int
    failures: int
    last_succeeded_at: datetime | None = None
    last_error: str | None = None


class Schedule(msgspec.Struct, frozen=True):
    """How a task stands, for people. `period` None: it is run when it is asked for, and `never` otherwise. `owner` is the instance that runs
    it, or died doing so, where it is not `running`; `last_result` is what the last run did.
    """

    task: str
    next_run_at: datetime
    period: timedelta | None
    owner: UUID | None
    lease_until: datetime
    last_ended_at: datetime | None
    last_succeeded_at: datetime | None
    last_error: str | None
    last_result: dict[str, int] | None
    last_took: timedelta | None
    failures: int
    running: bool
    due: bool
    never: bool


async def claim(pool: Pool, task: str, owner: UUID, *, period: timedelta | None, lease: timedelta) -> int | None:
    """Take the task if it is due and nobody runs it: the fence of the run, or None. A new task is due a period from now, without one when
    it is asked for.
    """
    fence = await pool.fetchval("SELECT emberlog.claim_maintenance($1, $2, $3, $4)", task, owner, period, lease)
    return None if fence is None else int(fence)


async def renew(pool: Pool, task: str, fence: int, *, lease: timedelta) -> bool:
    """Extend the lease; whether the run is still ours."""
    return bool(await pool.fetchval("SELECT emberlog.renew_maintenance($1, $2, $3)", task, fence, lease))


async def finish(
    pool: Pool,
    task: str,
    fence: int,
    *,
    period: timedelta | None,
    error: str | None,
    result: Mapping[str, int] | None = None,
) -> bool:
    """End the run; whether it was still ours, else nothing has changed."""
    kept = None if result is None else msgspec.json.encode(result).decode()
    return bool(
        await pool.fetchval("SELECT emberlog.finish_maintenance($1, $2, $3, $4, $5)", task, fence, period, error, kept)
    )


async def state(pool: Pool, task: str) -> TaskState | None:
    """How the task stands; None before anybody has asked for it."""
    row = await pool.fetchrow(_STATE, task)
    return None if row is None else msgspec.convert(dict(row), TaskState)


async def run_now(pool: Pool, task: str) -> bool:
    """Make the task due, unless it is being run; False where no gateway ever asked for such a task."""
    return bool(await pool.fetchval("SELECT emberlog.run_maintenance($1)", task))


async def schedules(pool: Pool, task: str | None = None) -> list[Schedule]:
    """How every task stands, or that one, by name."""
    return [_schedule(row) for row in await pool.fetch(_LIST, task)]


def _schedule(row: Any) -> Schedule:
    result = row["last_result"]
    return Schedule(**{**row, "last_result": None if result is None else msgspec.json.decode(result)})


async def sweep_instances(pool: Pool, age: timedelta) -> int:
    """Forget instances fenced longer than `age` ago that no open attempt names; returns how many."""
    return int(await pool.fetchval(_SWEEP, age))
