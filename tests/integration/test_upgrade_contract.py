"""The previous release on a database that has been migrated for this one, as during an upgrade: it notices nothing."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from uuid import uuid4

import asyncpg
import pytest

from adapters.embedded import EmbeddedServices
from adapters.postgres.event_log import PostgresEventLog
from adapters.postgres.migrator import Migration, load_migrations, migrate
from domain.decoding import decode_data
from domain.events import EventData
from projections.rebuild import Rebuild
from projections.runner import Runner
from projections.usage import USAGE
from tests.support.databases import create_database, drop_database, execute, with_database, with_user
from tests.support.previous_release import MIGRATIONS, events, life, of_that_release, previous_gateway
from tests.support.projecting import Recorded, plain_usage, usage_rows

BEFORE = [m for m in load_migrations() if not m.after_deploy]


@pytest.fixture
async def second_dsn(services: EmbeddedServices) -> AsyncIterator[str]:
    """A second empty database."""
    name = await create_database(services.owner_dsn)
    yield with_database(services.owner_dsn, name)
    await drop_database(services.owner_dsn, name)


async def _migrated(services: EmbeddedServices, dsn: str, *steps: list[Migration]) -> str:
    for step in steps:
        await migrate(dsn, migrations=step)
    await services.grant_app_role()
    return dsn


def test_the_migrations_of_that_release_are_as_it_left_them() -> None:
    assert {m.name: m.checksum for m in of_that_release(load_migrations())} == MIGRATIONS


async def test_it_works_on_todays_schema_before_its_deploy_as_on_its_own(
    services: EmbeddedServices, postgres_dsn: str, second_dsn: str
) -> None:
    old = of_that_release(BEFORE)
    await _migrated(services, postgres_dsn, old)
    await _migrated(services, second_dsn, old, BEFORE)
    async with previous_gateway(postgres_dsn) as gateway:
        alone = await life(gateway)
    async with previous_gateway(second_dsn) as gateway:
        among_newer = await life(gateway)
    assert among_newer == alone


@pytest.mark.parametrize(
    "change",
    [
        "ALTER TABLE emberlog.tenant_keys RENAME COLUMN wrapped TO sealed",
        "ALTER TABLE projections.cursors ALTER COLUMN lease_until DROP DEFAULT",
        "ALTER TABLE emberlog.events ADD CONSTRAINT billed CHECK (type <> 'embedding.reembedded')",
        "CREATE OR REPLACE FUNCTION projections.add_latency_bins(a bigint[], b bigint[]) RETURNS bigint[] LANGUAGE sql AS 'SELECT $2'",
        "REVOKE EXECUTE ON FUNCTION emberlog.fence_expired FROM emberlog_app",
    ],
)
async def test_a_migration_that_the_previous_release_would_notice_is_found(
    services: EmbeddedServices, postgres_dsn: str, second_dsn: str, change: str
) -> None:
    await _migrated(services, postgres_dsn, of_that_release(BEFORE))
    await _migrated(services, second_dsn, BEFORE)
    await execute(second_dsn, change)
    async with previous_gateway(postgres_dsn) as gateway:
        alone = await life(gateway)
    async with previous_gateway(second_dsn) as gateway:
        try:
            noticed = await life(gateway) != alone
        except (asyncpg.PostgresError, AssertionError):
            noticed = True
    assert noticed


async def test_a_view_that_both_releases_fold_in_turns_is_the_one_that_a_plain_fold_makes(
    services: EmbeddedServices, postgres_dsn: str
) -> None:
    await _migrated(services, postgres_dsn, of_that_release(BEFORE), BEFORE)
    async with previous_gateway(postgres_dsn) as gateway:
        instance = await gateway.value("register_instance", "ours", timedelta(seconds=600))
        heads = []
        for turn, request in enumerate(("first", "second", "third", "fourth")):
            await gateway.append(instance, events(instance, request))
            heads.append(head := await gateway.value("head"))
            for view in ("usage", "requests"):
                if turn % 2 == 0:
                    await gateway.fold(view, head, uuid4())
            if turn % 2:
                runner = Runner(with_user(postgres_dsn, "emberlog_gateway"))
                await runner.start()
                try:
                    for view in ("usage", "requests"):
                        await runner.wait_for(view, head, 20)
                finally:
                    await runner.stop()
        assert heads == [10, 20, 30, 40]
        log = [_recorded(row) for row in await gateway.fetch("read", 0, 100)]
    connection = await asyncpg.connect(postgres_dsn, server_settings={"timezone": "UTC"})
    try:
        rows = await usage_rows(connection)
        states = await connection.fetch(
            "SELECT state, count(*) FROM projections.requests GROUP BY state ORDER BY state"
        )
    finally:
        await connection.close()
    assert rows == plain_usage(log)
    assert [tuple(row) for row in states] == [("abandoned", 4), ("failed", 4), ("generated", 8), ("open", 4)]


async def test_it_folds_nothing_twice_where_a_rebuild_replaces_the_generation_that_it_knows(
    services: EmbeddedServices, postgres_dsn: str
) -> None:
    await _migrated(services, postgres_dsn, of_that_release(BEFORE), BEFORE)
    login = with_user(postgres_dsn, "emberlog_gateway")
    log = await PostgresEventLog.connect(login)
    try:
        async with previous_gateway(postgres_dsn) as gateway:
            instance = await gateway.value("register_instance", "ours", timedelta(seconds=600))
            await gateway.append(instance, events(instance, "first"))
            await gateway.fold("usage", 10, uuid4())
            fence = await gateway.own("usage", uuid4())
            before = await gateway.usage(86400)
            assert (await Rebuild(login, USAGE, log.read).run()).flipped
            await gateway.append(instance, events(instance, "second"))
            assert not await gateway.holds("usage", 10, fence), "it would fold on into the table of another generation"
            with pytest.raises(asyncpg.CheckViolationError, match="retired_has_no_owner"):
                await gateway.own("usage", uuid4())
            assert await gateway.usage(86400) == before
    finally:
        await log.close()


def _recorded(row: asyncpg.Record) -> Recorded:
    micros = int.from_bytes(row[7], "big", signed=True)
    data = decode_data(row[5], bytes(row[8]), row[6])
    assert isinstance(data, EventData)
    return Recorded(datetime(2000, 1, 1, tzinfo=UTC) + timedelta(microseconds=micros), row[2], data)
