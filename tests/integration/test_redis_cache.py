"""The shared vector cache on a real Valkey."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

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


@pytest.mark.parametrize("tag", [b"12345678", b"*?[a-z]*", b"\\*\\?[\\]", bytes(8), b"\xff\n[^\xc3*"])
async def test_a_purge_drops_every_vector_with_the_tag_and_nothing_else(redis_url: str, tag: bytes) -> None:
    others = [bytes([byte ^ 1]) + tag[1:] for byte in tag[:1]] + [tag[:-1] + bytes([tag[-1] ^ 1]), b"a" * 8]
    keys = [tag + i.to_bytes(16, "big") for i in range(2_500)]
    left = [other + bytes(16) for other in others]
    cache = RedisVectorCache(redis_url, 60, timeout=5)
    cache.put_many([(key, b"x") for key in keys + left])
    await cache.purge(tag)  # they are still on their way
    assert await look_up(cache, keys + left) == [None] * len(keys) + [b"x"] * len(left)
    cache.put_many([(key, b"x") for key in keys])
    await asyncio.sleep(0)  # the writer has taken them
    await cache.purge(tag)
    assert await look_up(cache, keys + left) == [None] * len(keys) + [b"x"] * len(left)
    await cache.close()


async def test_a_purge_that_cannot_reach_the_server_says_so(tmp_path: Path) -> None:
    cache = RedisVectorCache(f"unix://{tmp_path}/nobody.sock", 60)
    with pytest.raises(OSError, match="out of reach"):
        await cache.purge(b"12345678")
    await cache.close()


async def test_what_is_dropped_is_gone_also_where_it_was_just_put(redis_url: str) -> None:
    cache = RedisVectorCache(redis_url, 60)
    cache.put_many([(b"kept", b"1"), (b"dropped", b"2")])
    await cache.close()  # waits for what is being written
    cache = RedisVectorCache(redis_url, 60)
    cache.put_many([(b"on its way", b"3")])
    cache.drop_many([b"dropped", b"on its way"])
    await cache.close()
    cache = RedisVectorCache(redis_url, 60)
    assert await look_up(cache, [b"kept", b"dropped", b"on its way"]) == [b"1", None, None]
    await cache.close()
