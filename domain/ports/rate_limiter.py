"""The rate limiter port: token buckets that all processes share. It decides for many requests in one round trip.

Every implementation passes `tests/conformance/test_rate_limiter.py`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from domain.rate_buckets import Claim, Verdict


class LimiterUnavailable(Exception):
    """The buckets could not be asked, or the answer was lost: some of what was claimed may have been taken."""


class RateLimiter(Protocol):
    """Time is the store's own, so that the clocks of the processes do not matter.

    A bucket that the store has not seen for a minute, or has lost, lacks what the claim remembers of it (see `Claim.lacking`).
    """

    async def take(self, requests: Sequence[Sequence[Claim]]) -> list[Verdict]:
        """Decide for each request in order: it gets all that it claims, or nothing is taken for it.

        A request makes at least one claim, and one of a bucket. Of several claims of one bucket in a call the first says what is remembered
        of it; where they state different limits, any of them is applied. Raises `LimiterUnavailable`.
        """
        ...

    async def check(self) -> None:
        """Raise `LimiterUnavailable` unless the store answers."""
        ...

    async def close(self) -> None:
        """Release connections. Idempotent."""
        ...
