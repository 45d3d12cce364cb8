"""Archived events: read as before, found damaged where they are, and never lost on the way."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from uuid import UUID

import pytest

from adapters.embedded import EmbeddedServices
from adapters.postgres.event_log import PostgresEventLog
from adapters.postgres.pool import Connection, connect
from tests.support.archiving import WIDTH, age, archive_all, fill, migrate_narrow, read_all
from tests.support.databases import with_user

OLD = 10 * WIDTH
COUNT = OLD + 5


@pytest.fixture
async def owner_dsn(postgres_dsn: str, services: EmbeddedServices) -> str:
    await migrate_narrow(postgres_dsn)
    await services.grant_app_role()
    return postgres_dsn


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "archive"


@pytest.fixture
async def log(owner_dsn: str, folder: Path) -> AsyncIterator[PostgresEventLog]:
    made = await PostgresEventLog.connect(with_user(owner_dsn, "emberlog_gateway"), archive_dir=folder)
    yield made
    await made.close()


@pytest.fixture
async def instance(log: PostgresEventLog) -> UUID:
    return await log.register_instance("integration tests", 600)


@pytest.fixture
async def owner(owner_dsn: str) -> AsyncIterator[Connection]:
    connection = await connect(owner_dsn, "owner", role=False)
    yield connection
    await connection.close()


async def test_an_archived_log_reads_as_before_byte_for_byte(
    log: PostgresEventLog, instance: UUID, owner: Connection, owner_dsn: str, folder: Path
) -> None:
    await fill(log, instance, COUNT)
    await age(owner_dsn, OLD)
    before, decisions = await read_all(log), await log.read_decisions(0, 1000)
    segments = await archive_all(owner_dsn, folder)
    assert [(s.first_position, s.last_position) for s in segments] == [
        (n * WIDTH + 1, n * WIDTH + WIDTH) for n in range(10)
    ]
    assert await owner.fetchval("SELECT min(position) FROM emberlog.events") == 10 * WIDTH + 1
    for page in (1, 7, WIDTH, 1000):
        assert (await read_all(log, page))[:COUNT] == before
    assert await log.read_decisions(0, 1000) == decisions
    archived = [event for event in await read_all(log) if event.type == "log.archived"]
    assert len(archived) == 10
