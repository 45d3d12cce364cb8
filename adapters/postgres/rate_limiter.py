"""Token buckets in a table: where there is no Redis, and while it is away. One statement decides for many requests, by the server's clock."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

import asyncpg

from adapters.postgres.pool import UNREACHABLE, Connection, connect
from adapters.postgres.statements import statement
from domain.ports.rate_limiter import LimiterUnavailable
from domain.rate_buckets import Claim, Verdict

_TAKE, _FORGET = statement("take_buckets"), statement("forget_buckets")
_SECONDS = 2.0
"""A database that has not decided within this time counts as unreachable."""
_FORGET_SECONDS = 61.0
"""How long after the last use of a bucket its row is removed: it is full then."""
_LOST = (ConnectionError, asyncpg.PostgresConnectionError, asyncpg.InterfaceError, asyncpg.InternalClientError)


class PostgresRateLimiter:
    """Implements `RateLimiter` on one connection, made when it is first asked; one call at a time."""

    def __init__(self, dsn: str) -> None:
        self._dsn = dsn
        self._loop = asyncio.get_running_loop()
        self._connection: Connection | None = None
        self._turn = asyncio.Lock()
        self._last_take = 0.0
        self._forgetting: asyncio.Task[None] | None = None

    async def take(self, requests: Sequence[Sequence[Claim]]) -> list[Verdict]:
        """See `RateLimiter.take`."""
        numbers: dict[str, int] = {}
        limits: list[int] = []
        lacking: list[int] = []
        wanted: list[int] = []
        amounts: list[int] = []
        for claims in requests:
            for claim in claims:
                number = numbers.get(claim.bucket)
                if number is None:
                    limits.append(claim.limit)
                    lacking.append(claim.lacking)
                    number = numbers[claim.bucket] = len(limits)
                wanted.append(number)
                amounts.append(claim.amount)
        counts = [len(claims) for claims in requests]
        answer: list[int] = await self._ask(_TAKE, list(numbers), limits, lacking, counts, wanted, amounts)
        self._last_take = self._loop.time()
        if self._forgetting is None:
            self._forgetting = self._loop.create_task(self._forget())
        verdicts, at = [], 0
        for count in counts:
            end = at + 1 + count
            verdicts.append(Verdict(answer[at] == 1, answer[at + 1 : end]))
            at = end
        return verdicts

    async def check(self) -> None:
        """See `RateLimiter.check`."""
        await self._ask("SELECT 1")

    async def forget(self) -> None:
        """Remove the buckets that are full because nobody has asked for them. Raises `LimiterUnavailable`."""
        await self._ask(_FORGET)

    async def close(self) -> None:
        """See `RateLimiter.close`."""
        if self._forgetting is not None:
            self._forgetting.cancel()
            await asyncio.gather(self._forgetting, return_exceptions=True)
        if self._connection is not None:
            self._connection.terminate()
            self._connection = None

    async def _ask(self, query: str, *values: object) -> Any:
        """The first value of the answer. A connection on which anything fails, a deadline among that, is not used again."""
        try:
            async with asyncio.timeout(_SECONDS), self._turn:
                used_before = self._connection is not None
                try:
                    return await self._ask_once(query, values)
                except _LOST:
                    # It was idle, and may have been closed for that. At worst what is claimed is taken twice.
                    if not used_before:
                        raise
                    return await self._ask_once(query, values)
        except UNREACHABLE as error:
            raise LimiterUnavailable(f"the rate limits are out of reach in Postgres: {type(error).__name__}") from error

    async def _ask_once(self, query: str, values: Sequence[object]) -> Any:
        try:
            if self._connection is None:
                self._connection = await connect(self._dsn, "rate limits", statement_timeout=_SECONDS)
            return await self._connection.fetchval(query, *values)
        except BaseException:
            if self._connection is not None:
                self._connection.terminate()
                self._connection = None
            raise

    async def _forget(self) -> None:
        """Leave no row behind, neither while buckets are used nor when they are not any more."""
        done = False
        while not done:
            begun = self._loop.time()
            await asyncio.sleep(_FORGET_SECONDS)
            with suppress(LimiterUnavailable):
                await self.forget()
                done = self._last_take <= begun
        self._forgetting = None
