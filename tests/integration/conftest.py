"""A log as a gateway holds it; databases whose log has small partitions."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from uuid import UUID

import pytest
import pytest_asyncio

from adapters.embedded import EmbeddedServices
from adapters.postgres.event_log import PostgresEventLog
from adapters.postgres.migrator import migrate
from tests.support.archiving import WIDTH
from tests.support.databases import create_database, drop_database, execute, with_database

MakeDatabase = Callable[[], Awaitable[str]]


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def narrow_template(services: EmbeddedServices) -> str:
    """The name of a database with the whole schema and partitions of `WIDTH` positions, copied for each test that wants one."""
    name = await create_database(services.owner_dsn)
    await migrate(with_database(services.owner_dsn, name), partition_width=WIDTH)
    await services.grant_app_role()
    await execute(services.owner_dsn, f'ALTER DATABASE "{name}" ALLOW_CONNECTIONS false')
    await execute(
        services.owner_dsn, f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{name}'"
    )
    return name


@pytest.fixture
async def narrow_database(services: EmbeddedServices, narrow_template: str) -> AsyncIterator[MakeDatabase]:
    """Makes such databases, each call another; the owner's connection string. Dropped afterwards."""
    made: list[str] = []

    async def make() -> str:
        made.append(await create_database(services.owner_dsn, template=narrow_template))
        dsn = with_database(services.owner_dsn, made[-1])
        # A copy would pass for the same log.
        await execute(
            dsn, "UPDATE emberlog.log_identity SET installation = gen_random_uuid(), incarnation = gen_random_uuid()"
        )
        return dsn

    yield make
    for name in made:
        await drop_database(services.owner_dsn, name)


@pytest.fixture
async def narrow_dsn(narrow_database: MakeDatabase) -> str:
    """The owner's connection string to one."""
    return await narrow_database()


@pytest.fixture
async def log(app_dsn: str) -> AsyncIterator[PostgresEventLog]:
    """The log of the test's database, as a gateway holds it."""
    made = await PostgresEventLog.connect(app_dsn)
    yield made
    await made.close()


@pytest.fixture
async def instance(log: PostgresEventLog) -> UUID:
    """An instance that may append to it."""
    return await log.register_instance("integration tests", 600)
