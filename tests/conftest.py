"""Real services for every test that asks: one Postgres and one Valkey a session, a fresh database a test.

`EMBERLOG_TEST_POSTGRES=16` runs the session on Postgres 16.
"""

from __future__ import annotations

import asyncio
import os
import subprocess
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest
import pytest_asyncio

from adapters.embedded import EmbeddedServices
from adapters.postgres.pool import Connection, connect
from tests.support.databases import create_database, drop_database, execute, with_database, with_user
from tests.support.folders import temporary_data_dir, temporary_folder


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def services() -> AsyncIterator[EmbeddedServices]:
    """The session's services. A test that stops, kills or fills them starts its own in `data_dir` instead."""
    with temporary_folder() as folder, temporary_data_dir(folder) as data_dir:
        started = await EmbeddedServices.start(
            data_dir,
            valkey_maxmemory_mb=64,
            # A power cut does not happen to a test; a process killed loses nothing without fsync.
            postgres_settings={
                "fsync": "off",
                "full_page_writes": "off",
                "max_connections": "200",
                "shared_buffers": "32MB",  # each dropped database costs a walk over all of them
            },
            postgres_version=int(os.environ.get("EMBERLOG_TEST_POSTGRES", "18")),
        )
        async with started:
            yield started


@pytest.fixture
async def postgres_dsn(services: EmbeddedServices) -> AsyncIterator[str]:
    """A superuser's connection string to a new, empty database; dropped afterwards with whoever is connected."""
    name = await create_database(services.owner_dsn)
    yield with_database(services.owner_dsn, name)
    await drop_database(services.owner_dsn, name)


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def migrated_template(services: EmbeddedServices) -> str:
    """The name of a database with the whole schema, made once and copied for each test that wants one."""
    from adapters.postgres.migrator import migrate  # most tests do without

    name = await create_database(services.owner_dsn)
    await migrate(with_database(services.owner_dsn, name))
    await services.grant_app_role()
    await execute(services.owner_dsn, f'ALTER DATABASE "{name}" ALLOW_CONNECTIONS false')
    await execute(
        services.owner_dsn, f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{name}'"
    )
    return name


@pytest.fixture
async def migrated_dsn(services: EmbeddedServices, migrated_template: str) -> AsyncIterator[str]:
    """The owner's connection string to a new database with the whole schema."""
    name = await create_database(services.owner_dsn, template=migrated_template)
    yield with_database(services.owner_dsn, name)
    await drop_database(services.owner_dsn, name)


@pytest.fixture
def app_dsn(migrated_dsn: str) -> str:
    """The application's connection string to that database."""
    return with_user(migrated_dsn, "emberlog_gateway")


@pytest.fixture
async def owner(migrated_dsn: str) -> AsyncIterator[Connection]:
    """A connection to it with the owner's rights."""
    connection = await connect(migrated_dsn, "owner", role=False)
    yield connection
    await connection.close()


@pytest.fixture
async def redis_url(services: EmbeddedServices) -> str:
    """The URL of an empty Valkey."""
    assert services.redis_url is not None
    reader, writer = await asyncio.open_unix_connection(urlsplit(services.redis_url).path)
    writer.write(b"FLUSHALL SYNC\r\n")
    assert await reader.readline() == b"+OK\r\n"
    writer.close()
    await writer.wait_closed()
    return services.redis_url


@pytest.fixture
def open_folder() -> Iterator[Path]:
    """An empty folder that every user may pass; removed afterwards."""
    with temporary_folder() as folder:
        yield folder


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def _made_cluster() -> AsyncIterator[Path]:
    """A data folder whose cluster has been made once; nothing runs in it."""
    with temporary_folder() as folder, temporary_data_dir(folder) as data_dir:
        async with await EmbeddedServices.start(data_dir, valkey=False):
            pass
        yield data_dir


@pytest.fixture
def used_data_dir(data_dir: Path, _made_cluster: Path) -> Path:
    """Like `data_dir`, but as after a first start: its empty database is there, which saves the second that making it takes."""
    subprocess.run(["cp", "-a", str(_made_cluster), str(data_dir)], check=True)
    return data_dir


@pytest.fixture
def data_dir(open_folder: Path) -> Iterator[Path]:
    """The path of a data folder that does not exist yet; afterwards its servers are ended and its files removed."""
    with temporary_data_dir(open_folder) as path:
        yield path
