"""Migrations: applied once, in order, never edited, by any number of processes at once."""

from __future__ import annotations

import asyncio
import hashlib
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


def made(name: str, sql: str, *, after_deploy: bool = False) -> Migration:
    return Migration(name, sql, hashlib.sha256(sql.encode()).digest(), after_deploy)


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


BEFORE = made("9990_before", "CREATE TABLE emberlog.early ()")
AFTER = made("9991_after", "DROP TABLE emberlog.early", after_deploy=True)
LATER = made("9992_later", "CREATE TABLE emberlog.late ()")


async def test_a_database_whose_upgrade_to_a_newer_release_is_finished_is_refused(postgres_dsn: str) -> None:
    await migrate(postgres_dsn, migrations=[*REAL, BEFORE, AFTER])
    state = await schema_state(postgres_dsn)
    assert (state.status, state.names, state.serves) == (SchemaStatus.AHEAD, ("9991_after",), False)
    assert "newer" in state.message
    with pytest.raises(MigrationError, match="9991_after"):
        await migrate(postgres_dsn)


async def test_a_database_under_upgrade_to_a_newer_release_is_still_served_and_migrating_it_changes_nothing(
    postgres_dsn: str,
) -> None:
    await migrate(postgres_dsn)
    await migrate(postgres_dsn, migrations=[*REAL, BEFORE, AFTER])
    state = await schema_state(postgres_dsn)
    assert (state.status, state.names, state.serves) == (SchemaStatus.NEWER, ("9990_before",), True)
    assert await migrate(postgres_dsn, after=True) == []


async def test_what_ends_an_upgrade_waits_for_its_own_call(postgres_dsn: str, owner: Connection) -> None:
    await migrate(postgres_dsn)
    assert await migrate(postgres_dsn, migrations=[*REAL, BEFORE, AFTER]) == ["9990_before"]
    assert await migrate(postgres_dsn, migrations=[*REAL, BEFORE, AFTER]) == []
    assert await migrate(postgres_dsn, after=True, migrations=[*REAL, BEFORE, AFTER]) == ["9991_after"]
    kinds = await owner.fetch(
        "SELECT name, after_deploy FROM emberlog.schema_migrations WHERE name > '9' ORDER BY name"
    )
    assert [tuple(row) for row in kinds] == [("9990_before", False), ("9991_after", True)]


async def test_pending_ends_of_an_upgrade_leave_the_schema_current_and_are_named(
    postgres_dsn: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    await migrate(postgres_dsn)
    await migrate(postgres_dsn, migrations=[*REAL, BEFORE, AFTER])
    monkeypatch.setattr("adapters.postgres.migrator.load_migrations", lambda: [*REAL, BEFORE, AFTER])
    state = await schema_state(postgres_dsn)
    assert (state.status, state.names, state.after_deploy_pending) == (SchemaStatus.CURRENT, (), ("9991_after",))


async def test_a_release_is_not_begun_before_the_upgrade_before_it_is_finished(postgres_dsn: str) -> None:
    await migrate(postgres_dsn)
    await migrate(postgres_dsn, migrations=[*REAL, BEFORE, AFTER])
    with pytest.raises(MigrationError, match=r"9991_after must be applied before 9992_later.*migrate --after"):
        await migrate(postgres_dsn, migrations=[*REAL, BEFORE, AFTER, LATER])
    assert await migrate(postgres_dsn, after=True, migrations=[*REAL, BEFORE, AFTER, LATER]) == [
        "9991_after",
        "9992_later",
    ]


async def test_an_empty_database_gets_every_migration_in_the_order_of_the_numbers(postgres_dsn: str) -> None:
    every = [*REAL, BEFORE, AFTER, LATER]
    assert await migrate(postgres_dsn, migrations=every) == [m.name for m in every]


async def test_a_record_of_migrations_from_before_there_were_two_kinds_is_read_and_mended(
    postgres_dsn: str, owner: Connection
) -> None:
    await migrate(postgres_dsn)
    await owner.execute("ALTER TABLE emberlog.schema_migrations DROP COLUMN after_deploy")
    assert (await schema_state(postgres_dsn)).status is SchemaStatus.CURRENT
    await owner.execute("DELETE FROM emberlog.schema_migrations WHERE name = $1", REAL[-1].name)
    assert (await schema_state(postgres_dsn)).names == (REAL[-1].name,)
    await owner.execute(
        "INSERT INTO emberlog.schema_migrations (name, checksum) VALUES ($1, $2)", REAL[-1].name, REAL[-1].checksum
    )
    assert await migrate(postgres_dsn) == []
    assert await owner.fetchval("SELECT count(*) FROM emberlog.schema_migrations WHERE NOT after_deploy") == len(REAL)


async def test_a_migration_waits_in_short_turns_for_a_table_in_use_so_that_others_go_on(
    postgres_dsn: str, owner: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("adapters.postgres.migrator.LOCK_SECONDS", 0.1)
    monkeypatch.setattr("adapters.postgres.migrator.PAUSE_SECONDS", 0.1)
    await migrate(postgres_dsn)
    change = made("9993_change", "ALTER TABLE emberlog.instances ADD COLUMN later text")
    other = await connect(postgres_dsn, "reader", role=False)
    async with owner.transaction():
        await owner.fetch("SELECT FROM emberlog.instances")
        changing = asyncio.create_task(migrate(postgres_dsn, migrations=[*REAL, change]))
        for _ in range(20):
            await other.execute("SET statement_timeout = 2000; SELECT FROM emberlog.instances")
        assert not changing.done()
    assert await changing == ["9993_change"]
    await other.close()


async def test_a_migration_that_never_gets_its_table_says_so_and_changes_nothing(
    postgres_dsn: str, owner: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("adapters.postgres.migrator.LOCK_SECONDS", 0.05)
    monkeypatch.setattr("adapters.postgres.migrator.PAUSE_SECONDS", 0.0)
    monkeypatch.setattr("adapters.postgres.migrator.LOCK_TRIES", 3)
    await migrate(postgres_dsn)
    change = made("9993_change", "ALTER TABLE emberlog.instances ADD COLUMN later text")
    async with owner.transaction():
        await owner.fetch("SELECT FROM emberlog.instances")
        with pytest.raises(MigrationError, match=r"9993_change .*in use.*pg_stat_activity"):
            await migrate(postgres_dsn, migrations=[*REAL, change])
    assert (await schema_state(postgres_dsn)).status is SchemaStatus.CURRENT


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
    await owner.execute("CREATE EXTENSION vector SCHEMA public")
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


async def test_an_owner_that_may_not_make_the_extension_is_told_what_to_run(
    postgres_dsn: str, owner: Connection
) -> None:
    database = await owner.fetchval("SELECT current_database()")
    role = f"owner_of_{database}"
    await migrate_role(owner)
    await owner.execute(
        f'CREATE ROLE "{role}" LOGIN; GRANT emberlog_app TO "{role}"; ALTER DATABASE "{database}" OWNER TO "{role}"'
    )
    try:
        with pytest.raises(MigrationError, match="As a superuser run in this database: CREATE EXTENSION vector"):
            await migrate(with_user(postgres_dsn, role))
    finally:
        await owner.execute(f'REASSIGN OWNED BY "{role}" TO CURRENT_USER; DROP OWNED BY "{role}"; DROP ROLE "{role}"')


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


async def test_a_running_gateway_sees_a_newer_schema_and_when_it_is_no_longer_its_own(
    migrated_dsn: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    pool = await open_pool(migrated_dsn, "watch")
    watch = SchemaWatch(pool)

    async def seen(watch: SchemaWatch) -> SchemaStatus | None:
        state = await watch.state()
        return None if state is None else state.status

    record = "INSERT INTO emberlog.schema_migrations (name, checksum, after_deploy) VALUES"
    assert await seen(watch) is SchemaStatus.CURRENT
    await execute(migrated_dsn, f"{record} ('9998_newer', '', false)")
    assert await seen(watch) is SchemaStatus.CURRENT, "it looks at most once in a few seconds"
    monkeypatch.setattr("gateway.schema.LOOK_SECONDS", 0)
    assert await seen(SchemaWatch(pool)) is SchemaStatus.NEWER
    await execute(migrated_dsn, f"{record} ('9999_newest', '', true)")
    assert await seen(SchemaWatch(pool)) is SchemaStatus.AHEAD
    await pool.close()
    assert await seen(SchemaWatch(pool)) is None
