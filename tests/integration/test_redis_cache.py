"""The shared vector cache on a real Valkey."""

from __future__ import annotations

import asyncio
from pathlib import Path

from adapters.redis.vector_cache import RedisVectorCache

KEYS = [bytes([i]) * 16 for i in range(5)]


async def look_up(cache: RedisVectorCache, keys: list[bytes]) -> list[bytes | None]:
    found: asyncio.Future[list[bytes | None]] = asyncio.get_running_loop().create_future()
    cache.get_many(keys, found.set_result)
    async with asyncio.timeout(10):
        return await found


async def test_what_one_process_puts_another_finds_and_what_nobody_put_is_missing(redis_url: str) -> None:
    one, other = RedisVectorCache(redis_url, 60), RedisVectorCache(redis_url, 60)
    one.put_many([(KEYS[0], b"first"), (KEYS[1], b"\x00\xff")])
    await one.close()  # waits for what is being written
    assert await look_up(other, KEYS[:3]) == [b"first", b"\x00\xff", None]
    await other.close()


async def test_look_ups_of_one_turn_share_a_round_trip_and_each_gets_its_own(redis_url: str) -> None:
    cache = RedisVectorCache(redis_url, 60)
    cache.put_many([(key, key[:3]) for key in KEYS])
    await cache.close()
    cache = RedisVectorCache(redis_url, 60)
    results: dict[int, list[bytes | None]] = {}
    all_in = asyncio.Event()
    for i in range(5):

        def done(found: list[bytes | None], i: int = i) -> None:
            results[i] = found
            if len(results) == 5:
                all_in.set()

        cache.get_many([KEYS[i], KEYS[(i + 1) % 5]], done)
    async with asyncio.timeout(10):
        await all_in.wait()
    assert results == {i: [KEYS[i][:3], KEYS[(i + 1) % 5][:3]] for i in range(5)}
    await cache.close()


async def test_entries_expire(redis_url: str) -> None:
    from redis.asyncio import Redis

    from adapters.redis.vector_cache import PREFIX

    cache = RedisVectorCache(redis_url, 77)
    cache.put_many([(KEYS[0], b"x")])
    await cache.close()
    redis = Redis.from_url(redis_url)
    assert 0 < await redis.ttl(PREFIX + KEYS[0]) <= 77
    await redis.aclose()


async def test_an_unreachable_server_answers_nothing_found_at_once_and_costs_no_waiting(
    tmp_path: Path,
) -> None:
    cache = RedisVectorCache(f"unix://{tmp_path}/nobody.sock", 60)
    assert await look_up(cache, KEYS) == [None] * 5
    assert cache.failures == 1
    begun = asyncio.get_running_loop().time()
    for _ in range(100):
        assert await look_up(cache, KEYS) == [None] * 5
        cache.put_many([(KEYS[0], b"x")])
    assert cache.failures == 1, "it does not ask a dead server again and again"
    assert asyncio.get_running_loop().time() - begun < 1
    await cache.close()
