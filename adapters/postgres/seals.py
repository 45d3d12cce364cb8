"""The seals of the log: making those that are due, finding the newest and the one over a position."""

from __future__ import annotations

from datetime import timedelta

from adapters.postgres.pool import Pool
from domain.seals import SealedRange

REST_SECONDS = 60.0
"""Events that do not fill a seal wait at most this long for one."""
_A_CALL = 10
"""Seals of one transaction: a hundred thousand events, a fraction of a second, and on a slow disk still less than a statement may take."""


async def seal(pool: Pool, *, rest_seconds: float = REST_SECONDS) -> int:
    """Make the seals that are due, unless another process is at it; returns how many. Raises what the pool raises."""
    made = 0
    while True:
        batch = int(await pool.fetchval("SELECT emberlog.seal($1, $2)", timedelta(seconds=rest_seconds), _A_CALL))
        made += batch
        if batch < _A_CALL:
            return made


async def newest_seal(pool: Pool) -> SealedRange | None:
    """The seal that was made last; None before the first."""
    row = await pool.fetchrow(
        "SELECT number, first_position, last_position, hash FROM emberlog.seals ORDER BY number DESC LIMIT 1"
    )
    return None if row is None else SealedRange(*row)


async def seal_over(pool: Pool, position: int) -> SealedRange | None:
    """The seal that covers a position; None where it is not sealed yet."""
    row = await pool.fetchrow(
        "SELECT number, first_position, last_position, hash FROM emberlog.seals "
        "WHERE first_position <= $1 ORDER BY first_position DESC LIMIT 1",
        position,
    )
    return None if row is None or row["last_position"] < position else SealedRange(*row)
