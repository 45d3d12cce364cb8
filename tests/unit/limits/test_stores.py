"""Two stores of rate limits, of which one may be lost."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence

import pytest

from adapters.memory.rate_limiter import MemoryBuckets, MemoryRateLimiter
from domain.ports.rate_limiter import LimiterUnavailable
from domain.rate_buckets import Claim, Verdict
from gateway.limits import stores
from gateway.limits.stores import TwoStores, open_limiter
from tests.support.waiting import until

CLAIMS = [[Claim("{acme}tenant/requests/", 2, 1)]]


class Breakable(MemoryRateLimiter):
    """`gone`: it cannot be asked; `deaf`: it takes, and its answer is lost."""

    gone = deaf = False

    async def take(self, requests: Sequence[Sequence[Claim]]) -> list[Verdict]:
        if self.gone:
            raise LimiterUnavailable("gone")
        verdicts = await super().take(requests)
        if self.deaf:
            raise LimiterUnavailable("the answer was lost")
        return verdicts

    async def check(self) -> None:
        if self.gone or self.deaf:
            raise LimiterUnavailable("gone")


class World:
    """A Redis and a Postgres in memory; `process` is what another process would hold."""

    def __init__(self) -> None:
        self.redis = MemoryBuckets(lambda: 0)
        self.postgres = MemoryBuckets(lambda: 0)
        self.opened: list[TwoStores] = []

    def process(self) -> tuple[TwoStores, Breakable, Breakable]:
        first, second = Breakable(self.redis), Breakable(self.postgres)
        self.opened.append(TwoStores(first, second))
        return self.opened[-1], first, second


@pytest.fixture
async def world(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[World]:
    monkeypatch.setattr(stores, "_LOOK_SECONDS", 0.001)
    made = World()
    yield made
    for two in made.opened:
        await two.close()


async def drain(limiter: TwoStores) -> int:
    """How many requests pass until one does not."""
    passed = 0
    while (await limiter.take(CLAIMS))[0].admitted:
        passed += 1
    return passed


async def test_the_second_decides_from_the_moment_the_first_is_lost_until_it_is_back(world: World) -> None:
    limiter, first, _ = world.process()
    assert await drain(limiter) == 2
    first.gone = True
    assert await drain(limiter) == 2, "at most one full bucket passes at a switch"
    assert limiter.on_second
    assert limiter.failures == 1
    first.gone = False
    await until(lambda: not limiter.on_second, what="it returns to the first")
    assert await drain(limiter) == 0
    assert limiter.failures == 1


async def test_processes_share_the_second_as_they_share_the_first(world: World) -> None:
    processes = [world.process() for _ in range(4)]
    for _, first, _ in processes:
        first.gone = True
    assert sum([await drain(limiter) for limiter, _, _ in processes]) == 2


async def test_processes_that_count_for_themselves_would_let_as_many_times_more_through() -> None:
    """The test above can fail."""
    alone = [TwoStores(Breakable(MemoryBuckets(lambda: 0)), Breakable(MemoryBuckets(lambda: 0))) for _ in range(4)]
    assert sum([await drain(limiter) for limiter in alone]) == 8


async def test_what_was_taken_before_an_answer_was_lost_stays_taken(world: World) -> None:
    limiter, first, _ = world.process()
    first.deaf = True
    assert (await limiter.take(CLAIMS))[0].admitted
    first.deaf = False
    await until(lambda: not limiter.on_second, what="it returns to the first")
    assert await drain(limiter) == 1


async def test_with_both_lost_nothing_is_decided(world: World) -> None:
    limiter, first, second = world.process()
    first.gone = second.gone = True
    for _ in range(2):
        with pytest.raises(LimiterUnavailable):
            await limiter.take(CLAIMS)
    second.gone = False
    assert await drain(limiter) == 2


async def test_many_that_lose_the_first_together_look_for_it_once(world: World) -> None:
    limiter, first, _ = world.process()
    first.gone = True
    await asyncio.gather(*(limiter.take(CLAIMS) for _ in range(10)))
    assert limiter.failures == 1


async def test_without_redis_there_is_postgres_alone() -> None:
    limiter = open_limiter("postgresql://nobody@127.0.0.1:1/none", None)
    assert not isinstance(limiter, TwoStores)
    with pytest.raises(LimiterUnavailable):
        await limiter.take(CLAIMS)
    await limiter.close()
