"""How a request's rate limits stand, as HTTP answers say it, in OpenAI's header names and durations."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from domain.rate_buckets import Claim, remaining, reset_ms
from domain.rate_limits import Bucket

Drawn = tuple[Sequence[Bucket], Sequence[Claim], Sequence[int]]
"""Buckets that a request drew on, what it claimed of each, and what each lacked then."""


class Standing(msgspec.Struct, frozen=True, gc=False):
    """The tightest bucket of a unit: what it holds, what is left of that, and in how many milliseconds it is full again."""

    unit: str
    limit: int
    remaining: int
    reset_ms: int


def standings(drawn: Drawn) -> tuple[Standing, ...]:
    """For each unit that is limited the bucket with the least left."""
    tightest: dict[str, Standing] = {}
    for bucket, claim, parts in zip(*drawn, strict=True):
        left = max(0, remaining(claim.limit, parts))
        found = tightest.get(bucket.unit)
        if found is None or left < found.remaining:
            tightest[bucket.unit] = Standing(bucket.unit, claim.limit, left, reset_ms(claim.limit, parts))
    return tuple(tightest.values())


def rate_headers(standing: Sequence[Standing]) -> list[tuple[bytes, bytes]]:
    """`x-ratelimit-limit-requests` and its kin; none where nothing is limited."""
    headers = []
    for one in standing:
        for name, value in (("limit", one.limit), ("remaining", one.remaining), ("reset", duration(one.reset_ms))):
            headers.append((f"x-ratelimit-{name}-{one.unit}".encode(), str(value).encode()))
    return headers


def duration(ms: int) -> str:
    """A duration as OpenAI writes it: `20ms`, `1.5s`, `6m0s`."""
    if 0 < ms < 1000:
        return f"{ms}ms"
    minutes, rest = divmod(ms, 60_000)
    seconds = f"{rest / 1000:.3f}".rstrip("0").rstrip(".") + "s"
    return f"{minutes}m{seconds}" if minutes else seconds
