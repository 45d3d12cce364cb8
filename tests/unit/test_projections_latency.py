"""Percentiles out of the usage view's latency histogram."""

from __future__ import annotations

import re
from bisect import bisect_left

import pytest
from hypothesis import given
from hypothesis import strategies as st

from projections.usage import USAGE
from projections.usage.latency import BOUNDS_MS, percentile


def histogram(latencies: list[int]) -> list[int]:
    bins = [0] * (len(BOUNDS_MS) + 1)
    for ms in latencies:
        bins[bisect_left(BOUNDS_MS, ms)] += 1
    return bins


@given(st.lists(st.integers(0, 60_000), min_size=1), st.sampled_from([0.5, 0.95, 0.99]))
def test_a_percentile_lies_in_the_bin_of_the_true_one(latencies: list[int], fraction: float) -> None:
    rank = fraction * len(latencies)
    true = sorted(latencies)[max(0, -int(-rank // 1) - 1)]
    n = bisect_left(BOUNDS_MS, true)
    found = percentile(histogram(latencies), max(latencies), fraction)
    assert found is not None
    low = BOUNDS_MS[n - 1] if n else 0
    assert low <= found <= (BOUNDS_MS[n] if n < len(BOUNDS_MS) else max(latencies))


def test_without_requests_there_is_no_percentile() -> None:
    assert percentile([0] * 20, 0, 0.5) is None


@pytest.mark.parametrize("fraction", [0.5, 0.95, 0.99])
def test_a_percentile_never_passes_the_largest_latency_seen(fraction: float) -> None:
    found = percentile(histogram([1001] * 3), 1001, fraction)
    assert found is not None
    assert 1000 < found <= 1001


def test_the_sql_bins_by_the_same_bounds() -> None:
    array = re.search(r"ARRAY\[([\d, ]+)\]::bigint\[\]\) AS bin", USAGE.delta)
    assert array is not None
    assert tuple(int(n) for n in array[1].split(",")) == BOUNDS_MS
