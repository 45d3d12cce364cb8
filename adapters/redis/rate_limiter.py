"""Token buckets in Redis or Valkey: one script call decides for many requests, by the server's clock."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from importlib.resources import files

from redis.asyncio import BlockingConnectionPool, Redis
from redis.exceptions import ConnectionError as ConnectionLost
from redis.exceptions import RedisError

from domain.ports.rate_limiter import LimiterUnavailable
from domain.rate_buckets import Claim, Verdict

PREFIX = "emberlog:rate:"
_MAX_REQUESTS_PER_CALL = 256
"""A script holds the server up while it runs: 256 requests of eight claims take it about two milliseconds."""


class RedisRateLimiter:
    """Implements `RateLimiter`. `timeout` in seconds bounds each round trip."""

    def __init__(self, url: str, *, timeout: float = 0.5, max_connections: int = 2) -> None:
        self._timeout = timeout
        self._redis = Redis(
            connection_pool=BlockingConnectionPool.from_url(
                url,
                max_connections=max_connections,
                timeout=timeout,
                socket_timeout=timeout,
                socket_connect_timeout=timeout,
            )
        )
        script = files("adapters.redis").joinpath("take_buckets.lua").read_text("utf-8")
        self._take = self._redis.register_script(script)

    async def take(self, requests: Sequence[Sequence[Claim]]) -> list[Verdict]:
        """See `RateLimiter.take`."""
        verdicts: list[Verdict] = []
        try:
            async with asyncio.timeout(self._timeout * 2):
                for start in range(0, len(requests), _MAX_REQUESTS_PER_CALL):
                    verdicts += await self._ask(requests[start : start + _MAX_REQUESTS_PER_CALL])
        except (RedisError, OSError, TimeoutError) as error:
            raise LimiterUnavailable(f"the rate limits are out of reach in Redis: {type(error).__name__}") from error
        return verdicts

    async def check(self) -> None:
        """See `RateLimiter.check`."""
        try:
            async with asyncio.timeout(self._timeout * 2):
                await self._redis.ping()
        except (RedisError, OSError, TimeoutError) as error:
            raise LimiterUnavailable(f"Redis does not answer: {type(error).__name__}") from error

    async def close(self) -> None:
        """See `RateLimiter.close`."""
        await self._redis.aclose()
        await self._redis.connection_pool.disconnect()

    async def _ask(self, requests: Sequence[Sequence[Claim]]) -> list[Verdict]:
        numbers: dict[str, int] = {}
        limits: list[int] = []
        lacking: list[int] = []
        wanted: list[int] = []
        for claims in requests:
            wanted.append(len(claims))
            for claim in claims:
                number = numbers.get(claim.bucket)
                if number is None:
                    limits.append(claim.limit)
                    lacking.append(claim.lacking)
                    number = numbers[claim.bucket] = len(limits)
                wanted += (number, claim.amount)
        keys, args = [PREFIX + bucket for bucket in numbers], [*limits, *lacking, *wanted]
        try:
            answer: list[int] = await self._take(keys=keys, args=args)
        except ConnectionLost:
            # A connection that was idle may have been closed for that, which is no reason to leave the store. At worst it takes twice.
            answer = await self._take(keys=keys, args=args)
        verdicts, at = [], 0
        for claims in requests:
            end = at + 1 + len(claims)
            verdicts.append(Verdict(answer[at] == 1, answer[at + 1 : end]))
            at = end
        return verdicts
