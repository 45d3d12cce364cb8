"""Token buckets in one process's memory, by a clock of the caller's: for tests."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from domain.rate_buckets import Claim, Verdict, decide, standing


class MemoryBuckets:
    """What each bucket lacked, and when (ms); shared by the limiters of a test. Nothing is ever forgotten."""

    def __init__(self, now: Callable[[], int]) -> None:
        self.now = now
        self.state: dict[str, tuple[int, int]] = {}


class MemoryRateLimiter:
    """Implements `RateLimiter`."""

    def __init__(self, buckets: MemoryBuckets) -> None:
        self._buckets = buckets

    async def take(self, requests: Sequence[Sequence[Claim]]) -> list[Verdict]:
        """See `RateLimiter.take`."""
        now, state = self._buckets.now(), self._buckets.state
        lacking: dict[str, int] = {}
        for claims in requests:
            for claim in claims:
                if claim.bucket not in lacking:
                    lacking[claim.bucket] = standing(claim, state.get(claim.bucket), now)
        verdicts = [decide(claims, lacking) for claims in requests]
        state.update((bucket, (parts, now)) for bucket, parts in lacking.items())
        return verdicts

    async def check(self) -> None:
        """See `RateLimiter.check`."""

    async def close(self) -> None:
        """See `RateLimiter.close`."""
