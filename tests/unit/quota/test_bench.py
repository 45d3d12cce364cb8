"""The bench of the gate measures requests that pass it and settle."""

from __future__ import annotations

from gateway.bench.quota import run


async def test_the_bench_lets_every_request_in_without_a_wait() -> None:
    found = await run(200, agents=8)
    assert (found["requests"], found["agents"]) == (200, 8)
    assert 0 < found["none_us"] < 5_000
    assert 0 < found["three_us"] < 5_000
