"""Token buckets: what a rate limit is counted in.

A bucket holds one minute's worth and is refilled continuously. It is kept as what it lacks, in whole 1/60,000 of a unit, and a time in
whole milliseconds: a limit of n a minute then gives back exactly n of those a millisecond, and no implementation has to round.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

SCALE = 60_000
"""Parts of a unit, and milliseconds in a minute."""
MAX_PER_MINUTE = 100_000_000_000
"""The largest limit: a full bucket in parts must stay below 2**53, which is what Lua's numbers hold exactly."""


class Claim(msgspec.Struct, frozen=True, gc=False):
    """What one request wants of one bucket: `amount` units, at most `limit`, which is also what the bucket holds and is refilled by a minute.

    `bucket` names it across all processes and begins with its tenant in braces, so that a cluster keeps a tenant's buckets together.
    `lacking` is what the bucket lacks, in parts, as far as who claims remembers: it counts where the store has nothing to say.
    """

    bucket: str
    limit: int
    amount: int
    lacking: int = 0


class Verdict(msgspec.Struct, frozen=True, gc=False):
    """Whether a request got all it claimed (or nothing), and what each of its buckets lacks after that, in parts."""

    admitted: bool
    lacking: list[int]


def drained(lacking: int, at: int, limit: int, now: int) -> int:
    """What a bucket lacks at `now` that lacked `lacking` parts at `at` (ms). A clock that has gone back gives nothing; a lower limit forgives."""
    return max(0, min(lacking, limit * SCALE) - limit * max(0, now - at))


def standing(claim: Claim, stored: tuple[int, int] | None, now: int) -> int:
    """What its bucket lacks at `now`, by what the store has kept of it: parts and a time; that is nothing worth having after a minute."""
    if stored is None or now - stored[1] >= SCALE:
        return min(claim.lacking, claim.limit * SCALE)
    return drained(*stored, claim.limit, now)


def fits(claim: Claim, lacking: int) -> bool:
    """Whether the bucket holds what is claimed."""
    return lacking + claim.amount * SCALE <= claim.limit * SCALE


def wait_ms(claim: Claim, lacking: int) -> int:
    """After how many whole milliseconds the bucket will hold what is claimed, if nobody else takes of it; 0 where it does."""
    return max(0, -((claim.limit * SCALE - lacking - claim.amount * SCALE) // claim.limit))


def remaining(limit: int, lacking: int) -> int:
    """Whole units that a bucket holds."""
    return (limit * SCALE - lacking) // SCALE


def reset_ms(limit: int, lacking: int) -> int:
    """After how many whole milliseconds the bucket will be full."""
    return -(-lacking // limit)


def decide(claims: Sequence[Claim], lacking: dict[str, int]) -> Verdict:
    """Take what is claimed from all buckets or from none. `lacking` holds what each lacks now, and is changed."""
    admitted = all(fits(claim, lacking[claim.bucket]) for claim in claims)
    if admitted:
        for claim in claims:
            lacking[claim.bucket] += claim.amount * SCALE
    return Verdict(admitted, [lacking[claim.bucket] for claim in claims])
