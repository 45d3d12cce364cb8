"""What a process has heard of buckets within the last minute or two; what is older says nothing, nor what very many others came after."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from domain.rate_buckets import SCALE, Claim, drained

MOST = 100_000
"""Buckets heard of between two turns: clients name the threads that have some."""


class Memory:
    """`clock` is seconds that only grow. Buckets that are not heard of any more are forgotten a minute or two later, all at once."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._recent: dict[str, tuple[int, int]] = {}
        self._older: dict[str, tuple[int, int]] = {}
        self._turn_at = self.now() + SCALE

    def lacking(self, bucket: str, limit: int, now: int) -> int:
        """What the bucket lacks at `now` if nobody else has taken of it since."""
        found = self._recent.get(bucket) or self._older.get(bucket)
        return 0 if found is None else drained(*found, limit, now)

    def now(self) -> int:
        """Milliseconds."""
        return int(self._clock() * 1000)

    def note(self, claims: Sequence[Claim], lacking: Sequence[int]) -> None:
        """A store has said this just now."""
        now = self.now()
        if now >= self._turn_at or len(self._recent) >= MOST:
            self._recent, self._older, self._turn_at = {}, self._recent, now + SCALE
        for claim, parts in zip(claims, lacking, strict=True):
            self._recent[claim.bucket] = (parts, now)
