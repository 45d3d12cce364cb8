"""Latencies as a histogram of fixed buckets, so that several processes' figures add up to one distribution."""

from __future__ import annotations

import math

import msgspec
import numpy as np
from numpy.typing import NDArray

GROWTH = 1.02
"""Each bucket's upper bound is 2 % above the one below it: percentiles are right to within 2 %."""
_LOG_GROWTH = math.log(GROWTH)


class Latency(msgspec.Struct):
    """A distribution of times. `buckets`: how many lie in (GROWTH^(i-1), GROWTH^i] microseconds, by i. `max_us` is exact."""

    count: int = 0
    total_us: float = 0.0
    max_us: float = 0.0
    buckets: dict[int, int] = {}

    @classmethod
    def of(cls, seconds: NDArray[np.float64]) -> Latency:
        """The distribution of these times, in seconds."""
        if not len(seconds):
            return cls()
        us = np.maximum(seconds * 1e6, 1.0)
        places, counts = np.unique(np.ceil(np.log(us) / _LOG_GROWTH).astype(np.int64), return_counts=True)
        return cls(len(us), float(us.sum()), float(us.max()), dict(zip(places.tolist(), counts.tolist(), strict=True)))

    def __add__(self, other: Latency) -> Latency:
        buckets = dict(self.buckets)
        for place, count in other.buckets.items():
            buckets[place] = buckets.get(place, 0) + count
        return Latency(
            self.count + other.count, self.total_us + other.total_us, max(self.max_us, other.max_us), buckets
        )

    def percentile(self, percent: float) -> float | None:
        """The time in milliseconds that `percent` of the requests did not exceed; None of nothing."""
        wanted = math.ceil(self.count * percent / 100)
        seen = 0
        for place in sorted(self.buckets):
            seen += self.buckets[place]
            if seen >= wanted:
                return min(GROWTH**place, self.max_us) / 1e3
        return None

    def bounds(self) -> list[tuple[float, int]]:
        """The buckets that hold anything, lowest first: upper bound in microseconds and count."""
        return [(GROWTH**place, self.buckets[place]) for place in sorted(self.buckets)]

    def summary(self) -> dict[str, float | None]:
        """Mean, percentiles and maximum, in milliseconds."""
        return {
            "mean_ms": self.total_us / self.count / 1e3 if self.count else None,
            "p50_ms": self.percentile(50),
            "p90_ms": self.percentile(90),
            "p99_ms": self.percentile(99),
            "p999_ms": self.percentile(99.9),
            "max_ms": self.max_us / 1e3 if self.count else None,
        }
