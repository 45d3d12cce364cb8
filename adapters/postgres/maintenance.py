"""The periodic tasks of an installation as the database keeps them: taken by lease, renewed, ended; all times are its own."""

from __future__ import annotations

from datetime import datetime, timedelta
from uuid import UUID

import msgspec

from adapters.postgres.pool import Pool
from adapters.postgres.statements import statement

_STATE, _SWEEP = statement("maintenance_state"), statement("sweep_instances")


class TaskState(msgspec.Struct, frozen=True):
    """How a task stands. `failures` counts the failed runs since the last good one; `last_error` is that of the last run."""

    next_run_at: datetime
    fence: int
    failures: int
    last_succeeded_at: datetime | None = None
    last_error: str | None = None


async def claim(pool: Pool, task: str, owner: UUID, *, period: timedelta, lease: timedelta) -> int | None:
    """Take the task if it is due and nobody runs it: the fence of the run, or None. A new task is due a period from now."""
    fence = await pool.fetchval("SELECT emberlog.claim_maintenance($1, $2, $3, $4)", task, owner, period, lease)
    return None if fence is None else int(fence)


async def renew(pool: Pool, task: str, fence: int, *, lease: timedelta) -> bool:
    """Extend the lease; whether the run is still ours."""
    return bool(await pool.fetchval("SELECT emberlog.renew_maintenance($1, $2, $3)", task, fence, lease))


async def finish(pool: Pool, task: str, fence: int, *, period: timedelta, error: str | None) -> bool:
    """End the run; whether it was still ours, else nothing has changed."""
    return bool(await pool.fetchval("SELECT emberlog.finish_maintenance($1, $2, $3, $4)", task, fence, period, error))


async def state(pool: Pool, task: str) -> TaskState | None:
    """How the task stands; None before anybody has asked for it."""
    row = await pool.fetchrow(_STATE, task)
    return None if row is None else msgspec.convert(dict(row), TaskState)


async def sweep_instances(pool: Pool, age: timedelta) -> int:
    """Forget instances fenced longer than `age` ago that no open attempt names; returns how many."""
    return int(await pool.fetchval(_SWEEP, age))
