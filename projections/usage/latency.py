"""The latency histogram of the usage view: its bounds, and percentiles from its counts."""

from __future__ import annotations

from collections.abc import Sequence

BOUNDS_MS = (1, 2, 5, 10, 20, 35, 50, 75, 100, 150, 200, 300, 500, 750, 1000, 2000, 5000, 10_000, 30_000)
"""Upper bounds (inclusive) of the bins in milliseconds; one more bin holds what is above the last. `apply.sql` has the same."""


def percentile(bins: Sequence[int], maximum: int, fraction: float) -> float | None:
    """The latency in ms that `fraction` of the requests did not exceed, by linear interpolation within its bin; None without any.

    `bins` counts requests per bin (one more than `BOUNDS_MS`), `maximum` is the largest latency seen.
    """
    total = sum(bins)
    if total == 0:
        return None
    rank = fraction * total
    below = 0
    for n, count in enumerate(bins):
        if count and below + count >= rank:
            low = BOUNDS_MS[n - 1] if n else 0
            high = min(BOUNDS_MS[n], maximum) if n < len(BOUNDS_MS) else maximum
            return low + (high - low) * (rank - below) / count
        below += count
    return float(maximum)
