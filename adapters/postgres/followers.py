"""Leases on work that one process of an installation does at a time, and how far it has come; all times are the database's."""

from __future__ import annotations

from datetime import timedelta
from uuid import UUID

from adapters.postgres.pool import Pool
from adapters.postgres.statements import statement

_TAKE, _RENEW = statement("take_follower"), statement("renew_follower")


async def take(pool: Pool, name: str, owner: UUID, lease: timedelta) -> int | None:
    """Take the work unless another has it: the fence to show from now on, or None."""
    fence = await pool.fetchval(_TAKE, name, owner, lease)
    return None if fence is None else int(fence)


async def renew(pool: Pool, name: str, fence: int, lease: timedelta, position: int = 0) -> bool:
    """Extend the lease and note how far it has come, never back; whether the work is still ours."""
    return await pool.fetchval(_RENEW, name, fence, lease, position) is True


async def release(pool: Pool, name: str, fence: int) -> None:
    """Let another take it at once."""
    await pool.execute(
        "UPDATE emberlog.followers SET owner = NULL, lease_until = '-infinity' WHERE name = $1 AND fence = $2",
        name,
        fence,
    )


async def position(pool: Pool, name: str) -> int:
    """How far the work has come; 0 where nobody has begun."""
    return int(await pool.fetchval("SELECT position FROM emberlog.followers WHERE name = $1", name) or 0)
