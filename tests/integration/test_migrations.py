"""Migrations: applied once, in order, never edited, by any number of processes at once."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import asyncpg
import msgspec
import pytest

from adapters.postgres.event_log import PostgresEventLog
from adapters.postgres.migrator import (
    Migration,
    MigrationError,
    SchemaStatus,
    load_migrations,
    migrate,
    schema_state,
)
from adapters.postgres.pool import Connection, RoleMissing, connect, open_pool
from domain.ports.event_log import LogUnavailable
from gateway.schema import SchemaWatch
from tests.support.databases import execute, with_user

REAL = load_migrations()


@pytest.fixture
async def owner(postgres_dsn: str) -> AsyncIterator[Connection]:
    connection = await connect(postgres_dsn, "owner", role=False)
    yield connection
    await connection.close()


def test_every_migration_has_a_number_of_its_own() -> None:
    numbers = [migration.name.partition("_")[0] for migration in REAL]
    assert numbers == sorted(set(numbers))
    assert all(len(number) == 4 and number.isdigit() for number in numbers)


def test_a_migration_makes_at_most_one_function() -> None:
    assert [m.name for m in REAL if m.sql.upper().count("CREATE FUNCTION") > 1] == []


async def test_an_empty_database_is_behind_by_everything_and_says_what_to_run(postgres_dsn: str) -> None:
    state = await schema_state(postgres_dsn)
    assert state.status is SchemaStatus.BEHIND
    assert state.names == tuple(migration.name for migration in REAL)
    assert "emberlog migrate" in state.message


async def test_migrating_applies_everything_once_and_in_order(postgres_dsn: str, owner: Connection) -> None:
    assert await migrate(postgres_dsn) == [migration.name for migration in REAL]
    assert await migrate(postgres_dsn) == []
    assert (await schema_state(postgres_dsn)).status is SchemaStatus.CURRENT
    applied = await owner.fetch("SELECT name, checksum FROM emberlog.schema_migrations ORDER BY applied_at")
    assert [(row["name"], row["checksum"]) for row in applied] == [(m.name, m.checksum) for m in REAL]


async def test_processes_that_migrate_at_once_apply_each_migration_once(postgres_dsn: str) -> None:
    applied = await asyncio.gather(*(migrate(postgres_dsn) for _ in range(4)))
    assert sorted(applied, key=len)[:3] == [[], [], []]
    assert max(applied, key=len) == [migration.name for migration in REAL]


async def test_an_edited_migration_is_refused_by_name(postgres_dsn: str, owner: Connection) -> None:
    await migrate(postgres_dsn)
    edited = REAL[2].name
    await owner.execute("UPDATE emberlog.schema_migrations SET checksum = 'other' WHERE name = $1", edited)
    state = await schema_state(postgres_dsn)
    assert (state.status, state.names) == (SchemaStatus.EDITED, (edited,))
    with pytest.raises(MigrationError, match=edited):
        await migrate(postgres_dsn)


async def test_a_database_of_a_newer_build_is_refused(postgres_dsn: str, owner: Connection) -> None:
    await migrate(postgres_dsn)
    await owner.execute("INSERT INTO emberlog.schema_migrations VALUES ('9999_future', '')")
    state = await schema_state(postgres_dsn)
    assert (state.status, state.names) == (SchemaStatus.AHEAD, ("9999_future",))
    assert "newer" in state.message
    with pytest.raises(MigrationError, match="9999_future"):
        await migrate(postgres_dsn)


async def test_a_failing_migration_is_rolled_back_whole_and_those_before_it_stay(
    postgres_dsn: str, owner: Connection
) -> None:
    bad = Migration("9998_bad", "CREATE TABLE emberlog.half (); SELECT 1 / 0", b"")
    with pytest.raises(MigrationError, match="9998_bad"):
        await migrate(postgres_dsn, migrations=[*REAL, bad])
    assert await owner.fetchval("SELECT to_regclass('emberlog.half')") is None
    assert (await schema_state(postgres_dsn)).status is SchemaStatus.CURRENT
    mended = msgspec.structs.replace(bad, sql="CREATE TABLE emberlog.half ()")
    assert await migrate(postgres_dsn, migrations=[*REAL, mended]) == ["9998_bad"]


async def test_an_owner_that_is_no_superuser_can_migrate_and_become_the_application(
    postgres_dsn: str, owner: Connection
) -> None:
    database = await owner.fetchval("SELECT current_database()")
    role = f"owner_of_{database}"
    await migrate_role(owner)
    await owner.execute(
        f'CREATE ROLE "{role}" LOGIN; GRANT emberlog_app TO "{role}"; ALTER DATABASE "{database}" OWNER TO "{role}"'
    )
    try:
        dsn = with_user(postgres_dsn, role)
        assert await migrate(dsn)
        log = await PostgresEventLog.connect(dsn)
        assert await log.head() == 0
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            await log.pool.fetch("UPDATE emberlog.log_identity SET incarnation = gen_random_uuid()")
        await log.close()
    finally:
        await owner.execute(f'REASSIGN OWNED BY "{role}" TO CURRENT_USER; DROP OWNED BY "{role}"; DROP ROLE "{role}"')


async def migrate_role(owner: Connection) -> None:
    """Make the application's role as an administrator would ahead of the owner's migrations."""
    first = REAL[0].sql
    await owner.execute(first[: first.index("$$;") + 3])


async def test_an_owner_that_may_not_make_the_role_is_told_what_to_run(postgres_dsn: str, owner: Connection) -> None:
    role = f"weak_{await owner.fetchval('SELECT current_database()')}"
    first = msgspec.structs.replace(REAL[0], sql=REAL[0].sql.replace("emberlog_app", f"{role}_app"))
    await owner.execute(
        f'CREATE ROLE "{role}" LOGIN; GRANT CREATE ON DATABASE "{role.removeprefix("weak_")}" TO "{role}"'
    )
    try:
        with pytest.raises(MigrationError, match="CREATE ROLE"):
            await migrate(with_user(postgres_dsn, role), migrations=[first])
    finally:
        await owner.execute(f'DROP OWNED BY "{role}" CASCADE; DROP ROLE "{role}"')


async def test_a_login_outside_the_role_is_told_what_to_grant(postgres_dsn: str, owner: Connection) -> None:
    await migrate(postgres_dsn)
    role = f"stranger_{await owner.fetchval('SELECT current_database()')}"
    await owner.execute(f'CREATE ROLE "{role}" LOGIN')
    try:
        with pytest.raises(RoleMissing, match="GRANT emberlog_app"):
            await PostgresEventLog.connect(with_user(postgres_dsn, role))
        with pytest.raises(MigrationError, match="GRANT emberlog_app"):
            await schema_state(with_user(postgres_dsn, role))
    finally:
        await owner.execute(f'DROP ROLE "{role}"')


async def test_a_log_without_its_schema_is_unavailable(postgres_dsn: str) -> None:
    await migrate(postgres_dsn)
    await execute(postgres_dsn, "DROP FUNCTION emberlog.ensure_partitions")
    with pytest.raises(LogUnavailable, match="ensure_partitions"):
        await PostgresEventLog.connect(postgres_dsn)


async def test_the_application_may_rewrite_read_models_made_by_later_migrations(
    postgres_dsn: str, owner: Connection
) -> None:
    await migrate(postgres_dsn)
    await owner.execute("CREATE TABLE projections.later (n integer)")
    application = await connect(postgres_dsn, "application")
    try:
        await application.execute("INSERT INTO projections.later VALUES (1); UPDATE projections.later SET n = 2")
        await application.execute("DELETE FROM projections.later")
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            await application.execute("DROP TABLE projections.later")
    finally:
        await application.close()


async def test_a_running_gateway_sees_when_the_schema_is_no_longer_its_own(
    migrated_dsn: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    pool = await open_pool(migrated_dsn, "watch")
    watch = SchemaWatch(pool)
    assert await watch.status() is SchemaStatus.CURRENT
    await execute(migrated_dsn, "INSERT INTO emberlog.schema_migrations (name, checksum) VALUES ('9999_newer', '')")
    assert await watch.status() is SchemaStatus.CURRENT, "it looks at most once in a few seconds"
    monkeypatch.setattr("gateway.schema.LOOK_SECONDS", 0)
    assert await SchemaWatch(pool).status() is SchemaStatus.AHEAD
    await pool.close()
    assert await SchemaWatch(pool).status() is None
