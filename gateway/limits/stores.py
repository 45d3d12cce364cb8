"""Which store decides on rate limits: Redis while it answers, else Postgres; never nobody, and never each process for itself."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import structlog

from adapters.postgres.rate_limiter import PostgresRateLimiter
from adapters.redis.rate_limiter import RedisRateLimiter
from domain.ports.rate_limiter import LimiterUnavailable, RateLimiter
from domain.rate_buckets import Claim, Verdict

_log = structlog.get_logger("emberlog.limits")
_LOOK_SECONDS = 1.0
"""How often it is looked whether the first store is back. All processes look as often, so that they return to it at about the same time."""


def open_limiter(app_dsn: str, redis_url: str | None) -> TwoStores | PostgresRateLimiter:
    """The limiter of a gateway. Nothing is connected before a limit is to be checked."""
    postgres = PostgresRateLimiter(app_dsn)
    return postgres if redis_url is None else TwoStores(RedisRateLimiter(redis_url), postgres)


class TwoStores:
    """A `RateLimiter` that asks `first`, and `second` from the moment `first` fails until it answers again."""

    def __init__(self, first: RateLimiter, second: RateLimiter) -> None:
        self._first = first
        self._second = second
        self._watch: asyncio.Task[None] | None = None
        self.failures = 0
        """How often the first was lost."""

    @property
    def on_second(self) -> bool:
        """Whether the second store decides."""
        return self._watch is not None

    async def take(self, requests: Sequence[Sequence[Claim]]) -> list[Verdict]:
        """See `RateLimiter.take`. What the first store took before its answer was lost stays taken there."""
        if self._watch is None:
            try:
                return await self._first.take(requests)
            except LimiterUnavailable as error:
                self._lost(error)
        return await self._second.take(requests)

    async def check(self) -> None:
        """See `RateLimiter.check`."""
        await (self._second if self.on_second else self._first).check()

    async def close(self) -> None:
        """See `RateLimiter.close`."""
        if self._watch is not None:
            self._watch.cancel()
            await asyncio.gather(self._watch, return_exceptions=True)
            self._watch = None
        await self._first.close()
        await self._second.close()

    def _lost(self, error: LimiterUnavailable) -> None:
        if self._watch is None:
            self.failures += 1
            _log.warning("rate_limits_in_postgres", reason=str(error))
            self._watch = asyncio.get_running_loop().create_task(self._until_back())

    async def _until_back(self) -> None:
        while True:
            await asyncio.sleep(_LOOK_SECONDS)
            try:
                await self._first.check()
                break
            except LimiterUnavailable:
                pass
        self._watch = None
        _log.warning("rate_limits_in_redis_again")
