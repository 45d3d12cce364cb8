"""The bench of the log measures appends, and says so where it did not."""

from __future__ import annotations

import pytest

from adapters.embedded import EmbeddedServices
from adapters.postgres.event_log import PostgresEventLog
from gateway.bench.database import BenchDatabase
from gateway.bench.facts import fact
from gateway.bench.log import appender, appending, offer, saturate, several
from gateway.bench.run import BenchFailed
from tests.support.databases import with_user


@pytest.fixture
def database(services: EmbeddedServices, migrated_dsn: str) -> BenchDatabase:
    assert services.postgres_pid is not None
    return BenchDatabase(with_user(migrated_dsn, "emberlog_gateway"), migrated_dsn, services.postgres_pid)


async def test_every_event_of_every_process_is_appended(database: BenchDatabase) -> None:
    await saturate(database, 300, 64)
    await offer(database.dsn, 1_000, 0.2)
    await several(database, 3, 200)
    log = await PostgresEventLog.connect(database.dsn)
    assert await log.head() == 301 + 201 + 600
    await log.close()


async def test_duplicates_do_not_pass_for_appends(database: BenchDatabase) -> None:
    event = fact(0)

    async def twice() -> None:
        async with appending(database.dsn, 2), appender(database.dsn) as log:
            await log.append(event)
            await log.append(event)

    with pytest.raises(BenchFailed, match="of 2 events 1 were appended"):
        await twice()
