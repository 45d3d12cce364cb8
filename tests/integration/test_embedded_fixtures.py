from __future__ import annotations

import asyncpg
from redis.asyncio import Redis

from adapters.embedded import EmbeddedServices
from tests.support.databases import with_user


async def test_each_test_gets_an_empty_database_of_its_own(postgres_dsn: str) -> None:
    connection = await asyncpg.connect(postgres_dsn)
    assert await connection.fetchval("SELECT count(*) FROM pg_class WHERE relnamespace = 'public'::regnamespace") == 0
    await connection.execute("CREATE TABLE mine (a int)")
    await connection.close()


async def test_pgvector_compares_vectors(postgres_dsn: str) -> None:
    connection = await asyncpg.connect(postgres_dsn)
    await connection.execute("CREATE EXTENSION vector")
    assert await connection.fetchval("SELECT '[1,0]'::vector <=> '[0,1]'::vector") == 1.0
    await connection.close()


async def test_the_application_logs_in_as_a_user_that_is_no_superuser(
    services: EmbeddedServices, postgres_dsn: str
) -> None:
    connection = await asyncpg.connect(with_user(postgres_dsn, "emberlog_gateway"))
    assert await connection.fetchval("SELECT current_user::text") == "emberlog_gateway"
    assert not await connection.fetchval("SELECT rolsuper FROM pg_roles WHERE rolname = current_user")
    await connection.close()


async def test_valkey_is_bounded_and_keeps_nothing_on_disk(redis_url: str) -> None:
    async with Redis.from_url(redis_url) as redis:
        assert await redis.dbsize() == 0
        settings = await redis.config_get("maxmemory", "maxmemory-policy", "save", "appendonly", "port")
    assert settings == {
        "maxmemory": str(64 * 1024 * 1024),
        "maxmemory-policy": "allkeys-lru",
        "save": "",
        "appendonly": "no",
        "port": "0",
    }
