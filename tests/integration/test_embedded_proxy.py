from __future__ import annotations

import asyncio

import asyncpg
import pytest
from redis.asyncio import Redis
from redis.exceptions import ConnectionError as RedisConnectionError

from tests.support.proxy import CuttingProxy


async def test_postgres_is_reached_through_the_proxy_until_the_line_is_cut(postgres_dsn: str) -> None:
    async with CuttingProxy.before_postgres(postgres_dsn) as proxy:
        connection = await asyncpg.connect(proxy.postgres_dsn(postgres_dsn))
        assert await connection.fetchval("SELECT current_database()") in postgres_dsn
        sleeping = asyncio.create_task(connection.execute("SELECT pg_sleep(60)"))
        await asyncio.sleep(0)
        proxy.cut()
        with pytest.raises((asyncpg.PostgresConnectionError, OSError, asyncpg.InterfaceError)):
            await sleeping
        proxy.refuse()
        with pytest.raises((asyncpg.PostgresError, OSError)):
            await asyncpg.connect(proxy.postgres_dsn(postgres_dsn))
        proxy.refuse(False)
        again = await asyncpg.connect(proxy.postgres_dsn(postgres_dsn))
        await again.close()
        assert proxy.accepted == 2


async def test_a_paused_line_is_silent_and_goes_on_where_it_was(redis_url: str) -> None:
    async with CuttingProxy.before_redis(redis_url) as proxy, Redis.from_url(proxy.redis_url()) as redis:
        assert await redis.ping()
        proxy.pause()
        silent = asyncio.ensure_future(redis.echo("still there"))
        done, _ = await asyncio.wait({silent}, timeout=0.05)
        assert not done
        proxy.resume()
        assert await silent == b"still there"


async def test_a_cut_line_to_valkey_is_an_error_of_the_connection(redis_url: str) -> None:
    async with CuttingProxy.before_redis(redis_url) as proxy, Redis.from_url(proxy.redis_url(), retry=None) as redis:
        assert await redis.ping()
        proxy.refuse()
        proxy.cut()
        with pytest.raises(RedisConnectionError):
            await redis.ping()
