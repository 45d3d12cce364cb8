"""The gate of the rate limits: what all requests of a turn of the loop claim is asked for at once.

A request whose tenant has no limits passes with one look into a dictionary. What is heard of a bucket is remembered for a minute: a store
that has lost it (a full cache pushes out what is not in use, a lost Redis is left for Postgres) is told.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import msgspec

from domain.errors import GatewayError
from domain.ports.rate_limiter import LimiterUnavailable, RateLimiter
from domain.rate_buckets import Claim, Verdict, wait_ms
from domain.rate_limits import Bucket, RateLimits, buckets_of
from gateway.limits.memory import Memory
from gateway.service.pending import Pending


class _Asked(msgspec.Struct, frozen=True):
    """A request that waits for its verdict."""

    pending: Pending
    buckets: list[Bucket]
    claims: list[Claim]
    passed: asyncio.Future[None]


class RateGate:
    """A `gateway.service.service.Gate`. One call of the limiter is under way at a time; what comes meanwhile goes into the next."""

    def __init__(self, limits: RateLimits, limiter: RateLimiter) -> None:
        self._limits = limits
        self._limiter = limiter
        self._loop = asyncio.get_running_loop()
        self._heard = Memory(self._loop.time)
        self._waiting: list[_Asked] = []
        self._asking: asyncio.Task[None] | None = None

    def __call__(self, pending: Pending) -> asyncio.Future[None] | None:
        """Raises `invalid_request` for more tokens than a bucket ever holds; the wait ends in `rate_limited` or `unavailable`, or well."""
        limits = self._limits.of(pending.tenant)
        if limits is None:
            return None
        buckets = buckets_of(limits, pending.tenant, pending.key_id, pending.agent, pending.message.thread)
        if not buckets:
            return None
        now = self._heard.now()
        claims = [
            _claim(bucket, pending.total_tokens, self._heard.lacking(bucket.name, bucket.limit, now))
            for bucket in buckets
        ]
        asked = _Asked(pending, buckets, claims, self._loop.create_future())
        self._waiting.append(asked)
        if self._asking is None:
            self._asking = self._loop.create_task(self._ask())
        return asked.passed

    async def close(self) -> None:
        """Ask no more; who still waits goes on waiting for nothing."""
        if self._asking is not None:
            self._asking.cancel()
            await asyncio.gather(self._asking, return_exceptions=True)

    async def _ask(self) -> None:
        try:
            while self._waiting:
                waiting, self._waiting = self._waiting, []
                # Who has given up meanwhile takes nothing; its wait is over in any case.
                batch = [asked for asked in waiting if not (asked.pending.ended or asked.passed.done())]
                if not batch:
                    continue
                try:
                    verdicts = await self._limiter.take([asked.claims for asked in batch])
                except LimiterUnavailable:
                    _refuse(batch, _unavailable())
                except Exception as error:
                    _refuse(batch, error)
                else:
                    for asked, verdict in zip(batch, verdicts, strict=True):
                        self._heard.note(asked.claims, verdict.lacking)
                        _tell(asked, verdict)
        finally:
            self._asking = None


def _claim(bucket: Bucket, tokens: int, lacking: int) -> Claim:
    if bucket.unit == "requests":
        return Claim(bucket.name, bucket.limit, 1, lacking)
    if tokens > bucket.limit:
        raise GatewayError(
            "invalid_request",
            f"the input has {tokens} tokens; the rate limit of this {bucket.scope} is {bucket.limit} a minute, so it would never pass: split it",
            details={"field": "input", "scope": bucket.scope, "unit": bucket.unit, "limit": bucket.limit},
        )
    return Claim(bucket.name, bucket.limit, tokens, lacking)


def _tell(asked: _Asked, verdict: Verdict) -> None:
    asked.pending.drawn = (asked.buckets, asked.claims, verdict.lacking)
    if asked.passed.done():
        return
    if verdict.admitted:
        asked.passed.set_result(None)
    else:
        asked.passed.set_exception(_limited(asked, verdict))


def _limited(asked: _Asked, verdict: Verdict) -> GatewayError:
    """What is told is the bucket that takes the longest to hold enough."""
    waits = [wait_ms(claim, parts) for claim, parts in zip(asked.claims, verdict.lacking, strict=True)]
    longest = max(waits)
    bucket = asked.buckets[waits.index(longest)]
    return GatewayError(
        "rate_limited",
        f"the rate limit of this {bucket.scope}, {bucket.limit} {bucket.unit} a minute, is used up: try again in {longest} ms",
        details={"scope": bucket.scope, "unit": bucket.unit, "limit": bucket.limit},
        retry_after_ms=longest,
    )


def _unavailable() -> GatewayError:
    return GatewayError(
        "unavailable",
        "the rate limits that are set cannot be checked at the moment: try again shortly",
        retry_after_ms=1000,
    )


def _refuse(batch: Sequence[_Asked], error: Exception) -> None:
    for asked in batch:
        if not asked.passed.done():
            asked.passed.set_exception(error)
