"""What every rate limiter must do, on each of its implementations; two handles on one store stand for two processes."""

from __future__ import annotations

import asyncio
import math
import random
import time
from collections.abc import AsyncIterator
from typing import Protocol

import asyncpg
import pytest
from redis.asyncio import Redis
from redis.crc import key_slot

from adapters.memory.rate_limiter import MemoryBuckets, MemoryRateLimiter
from adapters.postgres.rate_limiter import PostgresRateLimiter
from adapters.redis.rate_limiter import PREFIX, RedisRateLimiter
from domain.ports.rate_limiter import LimiterUnavailable, RateLimiter
from domain.rate_buckets import MAX_PER_MINUTE, SCALE, Claim, decide, drained, reset_ms, wait_ms
from tests.support.proxy import CuttingProxy
from tests.support.waiting import until

MINUTE = 60_000
SLACK_MS = 10_000
"""More than a test may take between two calls; where a decision hangs on less, the store's own is followed."""


class World(Protocol):
    """A store of buckets. `age` lets `ms` milliseconds pass for them all."""

    async def open(self) -> RateLimiter: ...

    async def age(self, ms: int) -> None: ...

    async def names(self) -> set[str]: ...

    async def lose(self) -> None: ...


class MemoryWorld:
    def __init__(self) -> None:
        self._now = 1_700_000_000_000
        self._buckets = MemoryBuckets(lambda: self._now)

    async def open(self) -> RateLimiter:
        return MemoryRateLimiter(self._buckets)

    async def age(self, ms: int) -> None:
        self._now += ms

    async def names(self) -> set[str]:
        return set(self._buckets.state)

    async def lose(self) -> None:
        self._buckets.state.clear()


class RedisWorld:
    def __init__(self, url: str) -> None:
        self._url = url
        self._redis = Redis.from_url(url, decode_responses=True)
        self._opened: list[RateLimiter] = []

    async def open(self) -> RateLimiter:
        self._opened.append(RedisRateLimiter(self._url, timeout=5))
        return self._opened[-1]

    async def age(self, ms: int) -> None:
        for key in await self._redis.keys(PREFIX + "*"):
            lacking, at = str(await self._redis.get(key)).split()
            await self._redis.set(key, f"{lacking} {int(at) - ms}", keepttl=True)

    async def names(self) -> set[str]:
        return {str(key).removeprefix(PREFIX) for key in await self._redis.keys(PREFIX + "*")}

    async def lose(self) -> None:
        await self._redis.flushall()

    async def close(self) -> None:
        for limiter in self._opened:
            await limiter.close()
        await self._redis.aclose()


class PostgresWorld:
    def __init__(self, owner_dsn: str, app_dsn: str) -> None:
        self._owner_dsn, self._app_dsn = owner_dsn, app_dsn
        self._opened: list[RateLimiter] = []

    async def open(self) -> RateLimiter:
        self._opened.append(PostgresRateLimiter(self._app_dsn))
        return self._opened[-1]

    async def age(self, ms: int) -> None:
        await self._sql("UPDATE emberlog.rate_buckets SET at = at - $1", ms)

    async def names(self) -> set[str]:
        return {row["bucket"] for row in await self._sql("SELECT bucket FROM emberlog.rate_buckets")}

    async def lose(self) -> None:
        await self._sql("TRUNCATE emberlog.rate_buckets")

    async def _sql(self, query: str, *values: object) -> list[asyncpg.Record]:
        connection = await asyncpg.connect(self._owner_dsn)
        try:
            return await connection.fetch(query, *values)
        finally:
            await connection.close()

    async def close(self) -> None:
        for limiter in self._opened:
            await limiter.close()


@pytest.fixture
def memory_world() -> World:
    return MemoryWorld()


@pytest.fixture
async def redis_world(redis_url: str) -> AsyncIterator[World]:
    made = RedisWorld(redis_url)
    yield made
    await made.close()


@pytest.fixture
async def postgres_world(migrated_dsn: str, app_dsn: str) -> AsyncIterator[World]:
    made = PostgresWorld(migrated_dsn, app_dsn)
    yield made
    await made.close()


@pytest.fixture(params=["memory", "redis", "postgres"])
def world(request: pytest.FixtureRequest) -> World:
    made: World = request.getfixturevalue(f"{request.param}_world")
    return made


def one(name: str = "requests", limit: int = 1, amount: int = 1) -> Claim:
    return Claim(f"{{acme}}key/{name}/k1", limit, amount)


async def admitted(limiter: RateLimiter, *claims: Claim) -> bool:
    [verdict] = await limiter.take([claims])
    return verdict.admitted


async def test_a_bucket_gives_a_minutes_worth_at_once_and_then_nothing(world: World) -> None:
    limiter = await world.open()
    verdicts = await limiter.take([[one(limit=3)]] * 5)
    assert [verdict.admitted for verdict in verdicts] == [True, True, True, False, False]
    assert not await admitted(limiter, one(limit=3))


async def test_it_says_what_the_bucket_lacks_so_that_the_wait_is_exact_to_the_millisecond(world: World) -> None:
    limiter = await world.open()
    first, second = await limiter.take([[one(limit=6, amount=6)], [one(limit=6)]])
    assert first.lacking == [6 * SCALE]
    assert second.lacking == [6 * SCALE]
    assert wait_ms(one(limit=6), second.lacking[0]) == 10_000
    await world.age(9_000)
    [verdict] = await limiter.take([[one(limit=6)]])
    left = wait_ms(one(limit=6), verdict.lacking[0])
    assert left <= 1_000
    assert verdict.admitted == (left == 0)
    await world.age(1_000)
    assert await admitted(limiter, one(limit=6))


async def test_a_bucket_is_full_after_a_minute_and_holds_no_more_after_an_hour(world: World) -> None:
    limiter = await world.open()
    for pause in (MINUTE, 60 * MINUTE):
        verdicts = await limiter.take([[one(limit=4)]] * 6)
        assert [verdict.admitted for verdict in verdicts].count(True) == 4
        await world.age(pause)


async def test_a_request_gets_all_that_it_claims_or_takes_nothing(world: World) -> None:
    limiter = await world.open()
    tokens = one("tokens", 100, 60)
    verdicts = await limiter.take([[one("requests", 5), tokens]] * 2)
    assert [verdict.admitted for verdict in verdicts] == [True, False]
    assert verdicts[1].lacking == [1 * SCALE, 60 * SCALE], "the refused one has taken a request"
    verdicts = await limiter.take([[one("requests", 5), one("tokens", 100, 30)], [one("requests", 5)]])
    assert [verdict.admitted for verdict in verdicts] == [True, True]


async def test_a_small_request_passes_where_a_larger_one_before_it_does_not(world: World) -> None:
    limiter = await world.open()
    verdicts = await limiter.take([[one("tokens", 10, amount)] for amount in (6, 6, 3, 1, 1)])
    assert [verdict.admitted for verdict in verdicts] == [True, False, True, True, False]


async def test_processes_share_every_bucket_and_no_bucket_is_shared_by_two_names(world: World) -> None:
    here, there = await world.open(), await world.open()
    assert await admitted(here, one())
    assert not await admitted(there, one())
    assert await admitted(there, Claim("{acme}key/requests/k2", 1, 1))
    assert await admitted(there, Claim("{globex}key/requests/k1", 1, 1))


async def test_many_at_once_from_many_processes_get_exactly_what_there_is(world: World) -> None:
    limiters = [await world.open() for _ in range(4)]
    # Their buckets come in different orders: whoever waited for another in a circle would be thrown out.
    names = [f"{{acme}}thread/requests/t{i}" for i in range(6)]
    claims = {name: Claim(name, 20, 1) for name in names}

    async def ask(limiter: RateLimiter, seed: int) -> list[tuple[str, str]]:
        chance = random.Random(seed)
        got = []
        for _ in range(10):
            pairs = [(a, b) for a, b in (chance.sample(names, 2) for _ in range(3))]
            verdicts = await limiter.take([[claims[a], claims[b]] for a, b in pairs])
            got += [pair for pair, verdict in zip(pairs, verdicts, strict=True) if verdict.admitted]
        return got

    begun = time.monotonic()
    async with asyncio.timeout(60):
        results = await asyncio.gather(*(ask(limiter, n) for n, limiter in enumerate(limiters)))
    taken = [name for pairs in results for pair in pairs for name in pair]
    refilled = math.ceil(20 * (time.monotonic() - begun) / 60)
    assert all(taken.count(name) <= 20 + refilled for name in names)
    assert max(map(taken.count, names)) >= 19, "hardly anything was given out: the test shows nothing"


async def test_a_raised_limit_gives_the_difference_at_once_and_a_lowered_one_forgives_what_it_could_not_hold(
    world: World,
) -> None:
    limiter = await world.open()
    assert await admitted(limiter, one(limit=10, amount=10))
    [verdict] = await limiter.take([[one(limit=20, amount=10)]])
    assert verdict.admitted
    [verdict] = await limiter.take([[one(limit=2)]])
    assert not verdict.admitted
    assert wait_ms(one(limit=2), verdict.lacking[0]) <= 30_000
    await world.age(30_000)
    assert await admitted(limiter, one(limit=2))


async def test_a_clock_that_has_gone_back_gives_nothing_and_does_not_stop_the_refill(world: World) -> None:
    limiter = await world.open()
    assert await admitted(limiter, one())
    await world.age(-10 * MINUTE)
    assert not await admitted(limiter, one())
    await world.age(MINUTE)
    assert await admitted(limiter, one())


async def test_a_store_that_has_lost_a_bucket_goes_by_what_the_claim_remembers(world: World) -> None:
    limiter = await world.open()
    assert await admitted(limiter, one(limit=3, amount=3))
    await world.lose()
    remembered = Claim(one().bucket, 3, 2, lacking=2 * SCALE)
    verdicts = await limiter.take([[remembered], [one(limit=3)], [one(limit=3)]])
    assert [verdict.admitted for verdict in verdicts] == [False, True, False]
    assert verdicts[2].lacking == [3 * SCALE]
    await world.lose()
    [verdict] = await limiter.take([[Claim(one().bucket, 2, 1, lacking=9 * SCALE)]])
    assert verdict.lacking == [2 * SCALE], "more than there is cannot be lacking"


async def test_what_a_claim_remembers_counts_for_nothing_while_the_store_knows_better(world: World) -> None:
    limiter = await world.open()
    assert await admitted(limiter, one(limit=3))
    verdicts = await limiter.take([[Claim(one().bucket, 3, 1, lacking=3 * SCALE)]] * 3)
    assert [verdict.admitted for verdict in verdicts] == [True, True, False]


async def test_what_a_store_has_not_touched_for_a_minute_it_does_not_know_better(world: World) -> None:
    limiter = await world.open()
    assert await admitted(limiter, one(limit=3))
    await world.age(MINUTE)
    assert not await admitted(limiter, Claim(one().bucket, 3, 1, lacking=3 * SCALE))


async def test_the_largest_limit_is_counted_to_the_unit(world: World) -> None:
    limiter = await world.open()
    claim = one("tokens", MAX_PER_MINUTE, MAX_PER_MINUTE - 1)
    verdicts = await limiter.take([[claim], [one("tokens", MAX_PER_MINUTE, 1)], [one("tokens", MAX_PER_MINUTE, 1)]])
    assert [verdict.admitted for verdict in verdicts] == [True, True, False]
    assert verdicts[2].lacking == [MAX_PER_MINUTE * SCALE]


async def test_more_requests_than_one_call_takes_are_decided_in_their_order(world: World) -> None:
    limiter = await world.open()
    verdicts = await limiter.take([[one(limit=700), Claim(f"{{acme}}thread/requests/{i}", 1, 1)] for i in range(800)])
    assert [verdict.admitted for verdict in verdicts] == [True] * 700 + [False] * 100


async def test_names_are_kept_as_they_are(world: World) -> None:
    limiter = await world.open()
    names = ["{a}agent/requests/" + name for name in ("", " ", "ü{b}", "'; --", "%d %s", "a\nb", "x" * 256)]
    assert all(verdict.admitted for verdict in await limiter.take([[Claim(name, 1, 1)] for name in names]))
    assert await world.names() == set(names)
    assert not any(verdict.admitted for verdict in await limiter.take([[Claim(name, 1, 1)] for name in names]))


async def test_a_store_that_is_there_answers(world: World) -> None:
    await (await world.open()).check()


@pytest.mark.parametrize("seed", range(3))
async def test_every_implementation_decides_as_the_arithmetic_says(world: World, seed: int) -> None:
    """A random run against the plain arithmetic; what the store lacks may be less by what real time has given back."""
    chance = random.Random(seed)
    limiter, model, now = await world.open(), dict[str, tuple[int, int]](), 0
    outcomes = set()
    for _ in range(40):
        if chance.random() < 0.4:
            passed = chance.choice([1, 5_000, 20_000, 45_000])
            await world.age(passed)
            now += passed
        asked = []
        for _ in range(chance.randint(1, 4)):
            limit = chance.choice([2, 3])
            names = chance.sample("abcd", chance.randint(1, 3))
            asked.append([Claim(f"{{t}}{name}{limit}", limit, chance.randint(0, limit)) for name in names])
        lacking = {}
        for claim in [claim for claims in asked for claim in claims]:
            parts, at = model.get(claim.bucket, (0, now))
            lacking[claim.bucket] = drained(parts, at, claim.limit, now)
        verdicts = await limiter.take(asked)
        for claims, verdict in zip(asked, verdicts, strict=True):
            waits = [wait_ms(claim, lacking[claim.bucket]) for claim in claims]
            expected = decide(claims, dict(lacking))
            assert verdict.admitted == expected.admitted or max(waits) <= SLACK_MS
            outcomes.add(verdict.admitted)
            for claim, parts in zip(claims, verdict.lacking, strict=True):
                before = lacking[claim.bucket] + (claim.amount * SCALE if verdict.admitted else 0)
                assert 0 <= before - parts <= claim.limit * SLACK_MS
                assert reset_ms(claim.limit, parts) <= MINUTE
                lacking[claim.bucket] = parts
        model.update((bucket, (parts, now)) for bucket, parts in lacking.items())
    assert outcomes == {True, False}


async def test_redis_keeps_a_tenants_buckets_in_one_slot_and_forgets_them_after_a_minute(redis_url: str) -> None:
    limiter, redis = RedisRateLimiter(redis_url), Redis.from_url(redis_url)
    await limiter.take([[one(), one("tokens", 5)]])
    keys = await redis.keys("*")
    assert len(keys) == 2
    assert len({key_slot(key) for key in keys if isinstance(key, bytes)}) == 1
    for key in keys:
        assert 0 < await redis.pttl(key) <= MINUTE
    await limiter.close()
    await redis.aclose()


async def test_postgres_forgets_the_buckets_that_are_full_again_and_no_others(migrated_dsn: str, app_dsn: str) -> None:
    world = PostgresWorld(migrated_dsn, app_dsn)
    limiter = await world.open()
    assert isinstance(limiter, PostgresRateLimiter)
    await limiter.take([[Claim("{acme}old", 5, 5)]])
    await world.age(MINUTE + 1)
    await limiter.take([[Claim("{acme}new", 5, 5)]])
    await limiter.forget()
    assert await world.names() == {"{acme}new"}
    await world.close()


async def test_postgres_removes_what_nobody_uses_any_more_by_itself(
    migrated_dsn: str, app_dsn: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("adapters.postgres.rate_limiter._FORGET_SECONDS", 0.05)
    world = PostgresWorld(migrated_dsn, app_dsn)
    limiter = await world.open()
    for name in ("{acme}first", "{acme}second"):
        await limiter.take([[Claim(name, 5, 5)]])
        assert await world.names() == {name}
        await world.age(MINUTE + 1)

        async def gone() -> bool:
            return not await world.names()

        await until(gone, what="the row is removed")
    await world.close()


async def test_a_store_that_cannot_be_asked_says_so(redis_url: str, migrated_dsn: str, app_dsn: str) -> None:
    async with CuttingProxy.before_redis(redis_url) as redis, CuttingProxy.before_postgres(app_dsn) as postgres:
        limiters: list[tuple[CuttingProxy, RateLimiter]] = [
            (redis, RedisRateLimiter(redis.redis_url(), timeout=1)),
            (postgres, PostgresRateLimiter(postgres.postgres_dsn(app_dsn))),
        ]
        for proxy, limiter in limiters:
            assert await admitted(limiter, one(limit=5))
            proxy.cut()
            assert await admitted(limiter, one(limit=5)), (
                "a connection that was closed while idle is no reason to give up"
            )
            proxy.refuse()
            proxy.cut()
            with pytest.raises(LimiterUnavailable):
                await limiter.take([[one()]])
            with pytest.raises(LimiterUnavailable):
                await limiter.check()
            proxy.refuse(False)
            assert await admitted(limiter, one(limit=5)), "it does not find back"
            proxy.pause()
            with pytest.raises(LimiterUnavailable):
                await limiter.take([[one()]])
            proxy.resume()
            await limiter.close()
