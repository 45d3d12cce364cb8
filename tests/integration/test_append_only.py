"""What the database itself guarantees: nothing written is changed, nobody goes around the append function, one order."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator
from datetime import timedelta
from importlib.resources import files
from pathlib import Path
from uuid import UUID

import asyncpg
import pytest

from adapters.archive.archiver import Archiver
from adapters.postgres.event_log import PostgresEventLog
from adapters.postgres.maintenance import sweep_instances
from adapters.postgres.pool import Connection, connect
from domain.content_hash import content_hash
from domain.ports.event_log import AppendStatus, LogUnavailable, StoredEvent
from tests.conformance.conftest import new_event
from tests.support.databases import with_user
from tests.support.waiting import until

CHANGES = [
    "UPDATE emberlog.{table} SET tenant = 'evil'",
    "UPDATE emberlog.{table} SET tenant = 'evil' WHERE false",
    "DELETE FROM emberlog.{table}",
    "TRUNCATE emberlog.{table}",
    "TRUNCATE emberlog.{table} CASCADE",
]
WAITING = """FROM pg_locks JOIN pg_database d ON d.oid = database
WHERE locktype = 'advisory' AND NOT granted AND d.datname = current_database()"""
TABLES = ["events", "events_000000000001"]


@pytest.fixture
async def application(migrated_dsn: str) -> AsyncIterator[Connection]:
    connection = await connect(with_user(migrated_dsn, "emberlog_gateway"), "application")
    yield connection
    await connection.close()


# -- append only --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("table", TABLES)
@pytest.mark.parametrize("change", CHANGES)
async def test_the_application_role_has_no_right_to_change_an_event(
    log: PostgresEventLog, instance: UUID, application: Connection, change: str, table: str
) -> None:
    await log.append(instance, [new_event()])
    with pytest.raises(asyncpg.InsufficientPrivilegeError):
        await application.execute(change.format(table=table))
    assert (await log.read(0, 1))[0].tenant == "acme"


@pytest.mark.parametrize("replica", [False, True], ids=["", "with ordinary triggers switched off"])
@pytest.mark.parametrize("table", TABLES)
@pytest.mark.parametrize("change", CHANGES)
async def test_a_trigger_refuses_every_change_of_an_event_to_the_owner(
    log: PostgresEventLog, instance: UUID, owner: Connection, change: str, table: str, replica: bool
) -> None:
    await log.append(instance, [new_event()])
    if replica:
        await owner.execute("SET session_replication_role = replica")
    with pytest.raises(asyncpg.PostgresError, match="append-only") as refused:
        await owner.execute(change.format(table=table))
    assert refused.value.sqlstate == "EL002"
    assert (await log.read(0, 1))[0].tenant == "acme"


async def test_without_its_trigger_the_owner_could_change_an_event(
    log: PostgresEventLog, instance: UUID, owner: Connection
) -> None:
    # The negative control: what the tests above see is the trigger's doing.
    await log.append(instance, [new_event()])
    await owner.execute("ALTER TABLE emberlog.events_000000000001 DISABLE TRIGGER append_only")
    await owner.execute(CHANGES[0].format(table="events_000000000001"))
    assert (await log.read(0, 1))[0].tenant == "evil"


async def test_partitions_made_later_are_guarded_too(owner: Connection) -> None:
    await owner.execute("SELECT emberlog.ensure_partitions(100, 5)")
    names = await owner.fetch("SELECT name FROM emberlog.event_partitions")
    assert len(names) == 6
    for [name] in names:
        with pytest.raises(asyncpg.PostgresError, match="append-only"):
            await owner.execute(f"TRUNCATE emberlog.{name}")


ATTACKS = {
    "writing rows": [
        "INSERT INTO emberlog.events SELECT * FROM emberlog.events",
        "INSERT INTO emberlog.events_000000000001 SELECT * FROM emberlog.events",
        "COPY emberlog.events FROM STDIN",
        "COPY emberlog.events_000000000001 FROM STDIN",
        "MERGE INTO emberlog.events e USING (VALUES (1)) v (n) ON e.position = v.n WHEN MATCHED THEN DELETE",
        "SELECT FROM emberlog.events FOR UPDATE",
        "WITH gone AS (DELETE FROM emberlog.events_000000000001 RETURNING 1) SELECT count(*) FROM gone",
        "INSERT INTO emberlog.dedupe_keys VALUES (0, gen_random_uuid(), 1)",
        "DELETE FROM emberlog.dedupe_keys",
        "UPDATE emberlog.decision_streams SET version = 0",
        "UPDATE emberlog.log_identity SET incarnation = gen_random_uuid()",
        "UPDATE emberlog.instances SET fenced_at = NULL, fenced_head = NULL",
        "INSERT INTO emberlog.schema_migrations VALUES ('x', 'x')",
        "DELETE FROM emberlog.event_partitions",
        "TRUNCATE emberlog.events, emberlog.dedupe_keys, emberlog.decision_streams",
    ],
    "changing the tables": [
        "CREATE TABLE emberlog.mine ()",
        "DROP TABLE emberlog.events",
        "DROP TABLE emberlog.events_000000000001",
        "DROP SCHEMA emberlog CASCADE",
        "ALTER TABLE emberlog.events DISABLE TRIGGER append_only",
        "ALTER TABLE emberlog.events_000000000001 DISABLE TRIGGER ALL",
        "DROP TRIGGER append_only ON emberlog.events_000000000001",
        "ALTER TABLE emberlog.events DETACH PARTITION emberlog.events_000000000001",
        "ALTER TABLE emberlog.events RENAME COLUMN data TO other",
        "ALTER TABLE emberlog.events ALTER COLUMN data TYPE text",
        "ALTER TABLE emberlog.events OWNER TO emberlog_app",
        "CREATE RULE quiet AS ON INSERT TO emberlog.events DO INSTEAD NOTHING",
        "CREATE TRIGGER mine BEFORE INSERT ON emberlog.events FOR EACH ROW EXECUTE FUNCTION emberlog.refuse_change()",
        "CREATE POLICY mine ON emberlog.events USING (false)",
        "ALTER TABLE emberlog.events ENABLE ROW LEVEL SECURITY",
        "CREATE INDEX ON emberlog.events (tenant)",
        "CREATE TABLE projections.mine PARTITION OF emberlog.events FOR VALUES FROM (900000000000) TO (900000000001)",
    ],
    "getting other rights": [
        "SET session_replication_role = replica",
        "SET ROLE {owner}",
        "SET SESSION AUTHORIZATION {owner}",
        "SET ROLE pg_write_all_data",
        "GRANT {owner} TO emberlog_app",
        "GRANT EXECUTE ON FUNCTION emberlog.lock_log TO PUBLIC",
        "ALTER ROLE emberlog_app SUPERUSER",
        "REASSIGN OWNED BY {owner} TO emberlog_app",
        "DROP OWNED BY {owner}",
        "UPDATE pg_catalog.pg_trigger SET tgenabled = 'D'",
        "CREATE OR REPLACE FUNCTION emberlog.refuse_change() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END'",
        "ALTER FUNCTION emberlog.append SECURITY INVOKER",
        "DROP FUNCTION emberlog.lock_log",
        "ALTER DATABASE {database} SET session_replication_role = replica",
    ],
    "calling what is internal": [
        "SELECT emberlog.lock_log()",
        "SELECT emberlog.guard_events('emberlog.instances')",
        "SELECT emberlog.refuse_change()",
    ],
    "the server's files": [
        "COPY emberlog.events TO '/tmp/emberlog-stolen'",
        "COPY emberlog.events TO PROGRAM 'cat'",
        "SELECT pg_read_file('postgresql.conf')",
        "SELECT lo_import('/etc/hostname')",
        "SELECT pg_ls_waldir()",
    ],
}


async def _attack(connection: Connection, owner: Connection, attacks: list[str]) -> dict[str, str | None]:
    """Try each in a transaction that is rolled back; the SQLSTATE that each was answered with, None where it was done."""
    owner_name = await owner.fetchval("SELECT current_user")
    database = await owner.fetchval("SELECT current_database()")
    answers: dict[str, str | None] = {}
    for attack in attacks:
        transaction = connection.transaction()
        await transaction.start()
        try:
            await connection.execute(attack.format(owner=owner_name, database=database))
            answers[attack] = None
        except asyncpg.PostgresError as error:
            answers[attack] = error.sqlstate
        finally:
            await transaction.rollback()
    return answers


REFUSED = asyncpg.InsufficientPrivilegeError.sqlstate


@pytest.mark.parametrize("login", [False, True], ids=["as the role", "as the login behind it"])
@pytest.mark.parametrize("way", ATTACKS)
async def test_the_application_cannot_go_around_the_functions(
    application: Connection, owner: Connection, way: str, login: bool
) -> None:
    if login:
        await application.execute("RESET ROLE")
    answers = await _attack(application, owner, ATTACKS[way])
    assert answers == dict.fromkeys(ATTACKS[way], REFUSED)


@pytest.mark.parametrize("way", ATTACKS)
async def test_the_owner_has_the_rights_that_the_application_lacks(owner: Connection, way: str) -> None:
    """Negative control: it is the missing right that stops the application, not a mistake in the statement."""
    # COPY would wait for rows, or write to this machine.
    answers = await _attack(owner, owner, [attack for attack in ATTACKS[way] if not attack.startswith("COPY")])
    assert [attack for attack, answer in answers.items() if answer in (REFUSED, "42601")] == []


async def test_the_application_cannot_grant_itself_a_right(application: Connection, owner: Connection) -> None:
    # Postgres answers with a warning, so what counts is the effect.
    await application.execute("GRANT ALL ON emberlog.events, emberlog.events_000000000001 TO emberlog_app")
    assert not await owner.fetchval(
        "SELECT bool_or(has_table_privilege('emberlog_app', oid, 'INSERT, UPDATE, DELETE, TRUNCATE, REFERENCES, TRIGGER')) "
        "FROM pg_class WHERE relnamespace = 'emberlog'::regnamespace AND relkind IN ('r', 'p') "
        "AND relname ~ '^(event|dedupe|decision|instances|log_identity|schema_migrations)'"
    )


async def test_a_login_without_the_role_may_not_even_look(migrated_dsn: str, owner: Connection) -> None:
    # Every role may look at the catalogue; the schema itself is closed.
    assert not await owner.fetchval(
        "SELECT bool_or(has_schema_privilege(r.oid, 'emberlog', 'USAGE')) FROM pg_roles r "
        "WHERE NOT r.rolsuper AND r.rolname !~ '^pg_' AND NOT pg_has_role(r.oid, 'emberlog_app', 'MEMBER')"
    )


async def test_a_function_in_a_temporary_schema_does_not_get_the_owners_rights(
    log: PostgresEventLog, migrated_dsn: str
) -> None:
    application = await connect(with_user(migrated_dsn, "emberlog_gateway"), "attacker")
    try:
        await application.execute(
            "CREATE FUNCTION pg_temp.sha256(bytea) RETURNS bytea LANGUAGE sql AS $$ SELECT 'forged'::bytea $$; "
            "CREATE TEMP TABLE events (position bigint); SET search_path = pg_temp, emberlog, pg_catalog"
        )
        instance = await application.fetchval("SELECT emberlog.register_instance('attacker', interval '1 min')")
        await application.execute(
            "SELECT emberlog.append($1, $2, $2, 'acme', 's', 't', '{}')", instance, bytes(range(16))
        )
    finally:
        await application.close()
    assert (await log.read(0, 1))[0].content_hash != b"forged"


VIEWS = ("usage", "requests")


@pytest.fixture
async def trapped_views(application: Connection) -> None:
    """Views that tell by an error in whose name they were read, as whoever has the application's login can make them."""
    await application.execute(
        "CREATE FUNCTION projections.trap() RETURNS boolean LANGUAGE plpgsql AS "
        "$$ BEGIN RAISE EXCEPTION 'read as %', current_user; END $$"
    )
    for view in VIEWS:
        await application.execute(
            f"CREATE OR REPLACE VIEW projections.{view} AS SELECT * FROM projections.{view}_1 WHERE (SELECT projections.trap())"
        )


@pytest.mark.usefixtures("trapped_views")
async def test_nothing_that_runs_with_the_owners_rights_reads_the_applications_views(
    log: PostgresEventLog, instance: UUID, migrated_dsn: str, owner: Connection, tmp_path: Path
) -> None:
    await log.fence_instance(instance)
    await owner.execute("INSERT INTO projections.cursors (name, position) VALUES ('requests', 5)")
    await owner.execute("INSERT INTO quota.instances VALUES ($1, 0, true)", str(instance))
    with pytest.raises(asyncpg.RaiseError, match="read as emberlog_app"):
        await sweep_instances(log.pool, timedelta(0))
    assert await owner.fetchval("SELECT emberlog.archive_refusal(1, 10)") == "they are no partition"
    archiver = await Archiver.open(migrated_dsn, with_user(migrated_dsn, "emberlog_gateway"), tmp_path)
    try:
        with pytest.raises(asyncpg.RaiseError, match="read as emberlog_app"):
            await archiver._check_requests(1, 10)
    finally:
        await archiver.close()


@pytest.mark.usefixtures("trapped_views")
async def test_no_function_of_the_schema_names_a_view_of_the_application(owner: Connection) -> None:
    bodies = "SELECT proname FROM pg_proc WHERE pronamespace = 'emberlog'::regnamespace AND prosrc ~ $1"
    assert await owner.fetch(bodies, rf"projections\.({'|'.join(VIEWS)})") == []
    # Negative controls: the pattern finds what there is, and a view that the owner reads runs in the owner's name.
    assert [row[0] for row in await owner.fetch(bodies, r"projections\.cursors")] == ["archive_refusal"]
    with pytest.raises(asyncpg.RaiseError, match=f"read as {await owner.fetchval('SELECT current_user')}"):
        await owner.fetch("TABLE projections.requests")


DEFINER_CALLS = {
    "append": "SELECT emberlog.append('{instance}', '{key}', '{key}', 'acme', 's', 't', '{{}}')",
    "claim_maintenance": "SELECT emberlog.claim_maintenance('chores', gen_random_uuid(), '1 h', '1 s')",
    "collection_index": "SELECT emberlog.collection_index(repeat('a', 32))",
    "drop_collection": "SELECT emberlog.drop_collection(repeat('a', 32), 'acme')",
    "drop_old_dedupe_keys": "SELECT emberlog.drop_old_dedupe_keys()",
    "ensure_partitions": "SELECT emberlog.ensure_partitions(p_reach => 90000000)",
    "fence_expired": "SELECT emberlog.fence_expired()",
    "fence_instance": "SELECT emberlog.fence_instance('{instance}')",
    "finish_maintenance": "SELECT emberlog.finish_maintenance('chores', 1, '1 h', 'no')",
    "head": "SELECT emberlog.head()",
    "open_collection": "SELECT emberlog.open_collection(repeat('a', 32), 'acme', 3)",
    "register_instance": "SELECT emberlog.register_instance('x', '1 h')",
    "renew_instance": "SELECT emberlog.renew_instance('{instance}', '1 h')",
    "renew_maintenance": "SELECT emberlog.renew_maintenance('chores', 1, '1 h')",
    "run_maintenance": "SELECT emberlog.run_maintenance('chores')",
    "seal": "SELECT emberlog.seal('0 s')",
    "sweep_instances": "SELECT emberlog.sweep_instances('{{}}')",
}
TYPES = (
    "uuid",
    "bytea",
    "text",
    "timestamptz",
    "timestamp",
    "jsonb",
    "regclass",
    "int8",
    "int4",
    "int2",
    "interval",
    "bool",
    "date",
)


async def _call_among_trapped_types(application: Connection, instance: UUID, name: str) -> None:
    """Call the function in a session whose temporary schema has a domain for each type, which tells by an error who checks it."""
    domains = "; ".join(f"CREATE DOMAIN pg_temp.{kind} AS pg_catalog.{kind} CHECK (pg_temp.trap())" for kind in TYPES)
    await application.execute(
        "CREATE FUNCTION pg_temp.trap() RETURNS pg_catalog.bool LANGUAGE plpgsql AS "
        f"$$ BEGIN RAISE EXCEPTION 'checked as %', current_user; END $$; {domains}"
    )
    await application.execute(DEFINER_CALLS[name].format(instance=instance, key="\\x" + "11" * 16))


@pytest.mark.parametrize("name", DEFINER_CALLS)
async def test_a_type_in_a_temporary_schema_does_not_get_the_owners_rights(
    log: PostgresEventLog, instance: UUID, application: Connection, name: str
) -> None:
    await log.append(instance, [new_event()])
    await _call_among_trapped_types(application, instance, name)


@pytest.mark.parametrize("name", ["append", "drop_old_dedupe_keys", "ensure_partitions", "seal"])
async def test_with_the_temporary_schema_in_its_usual_place_it_would_get_them(
    log: PostgresEventLog, instance: UUID, application: Connection, owner: Connection, name: str
) -> None:
    """Negative control, and why the search path names that schema."""
    await log.append(instance, [new_event()])
    await owner.execute(f"ALTER FUNCTION emberlog.{name} SET search_path = pg_catalog")
    with pytest.raises(asyncpg.RaiseError, match=f"checked as {await owner.fetchval('SELECT current_user')}"):
        await _call_among_trapped_types(application, instance, name)


async def test_every_function_with_the_owners_rights_is_among_those_attacked_and_looks_into_the_temporary_schema_last(
    owner: Connection,
) -> None:
    functions = await owner.fetch(
        "SELECT proname, proconfig, prosecdef FROM pg_proc p JOIN pg_language l ON l.oid = p.prolang "
        "WHERE pronamespace = 'emberlog'::regnamespace AND (prosecdef OR lanname = 'plpgsql')"
    )
    assert {row["proname"] for row in functions if row["prosecdef"]} == set(DEFINER_CALLS)
    assert [row["proname"] for row in functions if "search_path=pg_catalog, pg_temp" not in row["proconfig"]] == []


# -- what is stored -----------------------------------------------------------------------------------------------------


async def test_the_content_hash_is_what_its_description_says(log: PostgresEventLog, instance: UUID) -> None:
    events = [
        new_event(tenant="ä b", stream="s s"),
        new_event(
            stream="tenant/x", expected_version=0, schema_version=7, data='{"b": "ü", "a": [1.50, null]}'.encode()
        ),
    ]
    await log.append(instance, events)
    for event, stored in zip(events, await log.read(0, 10), strict=True):
        assert (stored.tenant, stored.stream, stored.schema_version) == (
            event.tenant,
            event.stream,
            event.schema_version,
        )
        assert stored.content_hash == content_hash(stored)


async def test_the_database_recomputes_the_same_content_hash(
    log: PostgresEventLog, instance: UUID, owner: Connection
) -> None:
    await log.append(instance, [new_event(), new_event(stream="tenant/x", expected_version=-1)])
    assert await owner.fetchval(
        "SELECT bool_and(content_hash = emberlog.content_hash(position, event_id, tenant, stream, version, type, "
        "schema_version, emberlog.micros(recorded_at), data)) FROM emberlog.events"
    )


# -- the lock -----------------------------------------------------------------------------------------------------------


async def test_a_lock_held_too_long_is_unavailable_and_the_batch_can_be_sent_again(
    log: PostgresEventLog, instance: UUID, owner: Connection
) -> None:
    await owner.execute("ALTER FUNCTION emberlog.append SET lock_timeout = '50ms'")
    events = [new_event(), new_event()]
    async with owner.transaction():
        await owner.execute("SELECT emberlog.lock_log()")
        with pytest.raises(LogUnavailable):
            await log.append(instance, events)
    assert [outcome.position for outcome in await log.append(instance, events)] == [1, 2]


async def test_appends_are_durable_where_the_database_says_otherwise_by_default(
    migrated_dsn: str, owner: Connection
) -> None:
    database = await owner.fetchval("SELECT current_database()")
    await owner.execute(f"ALTER DATABASE {database} SET synchronous_commit = off")
    log = await PostgresEventLog.connect(with_user(migrated_dsn, "emberlog_gateway"))
    await log.append(await log.register_instance("x", 60), [new_event()])
    assert log._connection is not None
    assert await log._connection.fetchval("SHOW synchronous_commit") == "on"
    await log.close()


async def test_a_stricter_isolation_level_is_refused(owner: Connection) -> None:
    for level in ("repeatable_read", "serializable"):
        with pytest.raises(asyncpg.PostgresError, match="read committed") as refused:
            async with owner.transaction(isolation=level):
                await owner.execute("SELECT emberlog.append(gen_random_uuid(), '', '', '', '', '', '')")
        assert refused.value.sqlstate == "EL003"


async def test_a_backend_killed_in_the_middle_of_a_batch_leaves_nothing_and_the_retry_writes_each_event_once(
    log: PostgresEventLog, instance: UUID, owner: Connection
) -> None:
    events = [new_event() for _ in range(50)]
    await log.append(instance, events[:10])
    async with owner.transaction():
        await owner.execute("SELECT emberlog.lock_log()")
        sending = asyncio.create_task(log.append(instance, events))
        pid = await until(lambda: owner.fetchval(f"SELECT pid {WAITING}"), what="the append waits for the lock")
        await owner.execute("SELECT pg_terminate_backend($1)", pid)
        with pytest.raises(LogUnavailable):
            await sending
    outcomes = await log.append(instance, events)
    assert [outcome.status for outcome in outcomes] == [AppendStatus.DUPLICATE] * 10 + [AppendStatus.APPENDED] * 40
    assert [event.event_id for event in await log.read(0, 100)] == [event.event_id for event in events]


async def test_a_batch_that_was_written_though_its_answer_was_lost_is_not_written_again(
    log: PostgresEventLog, instance: UUID, owner: Connection
) -> None:
    events = [new_event() for _ in range(5)]
    async with owner.transaction():
        await owner.execute("SELECT emberlog.lock_log()")
        lost = asyncio.create_task(log.append(instance, events))
        await until(lambda: owner.fetchval(f"SELECT pid {WAITING}"), what="the append waits for the lock")
        log._disconnect()  # the server goes on with the statement, its answer has nobody to go to
        with pytest.raises(LogUnavailable):
            await lost
        again = asyncio.create_task(log.append(instance, events))
        await until(lambda: owner.fetchval(f"SELECT count(*) > 1 {WAITING}"), what="both appends wait for the lock")
    outcomes = await again
    assert {outcome.position for outcome in outcomes} == {1, 2, 3, 4, 5}
    assert await log.head() == 5


# -- partitions and days ------------------------------------------------------------------------------------------------


async def test_an_append_makes_the_partitions_it_needs(
    log: PostgresEventLog, instance: UUID, owner: Connection
) -> None:
    await owner.execute(
        "DROP TABLE emberlog.events_000000000001, emberlog.events_000010000001; DELETE FROM emberlog.event_partitions"
    )
    for [name] in await owner.fetch(
        "SELECT inhrelid::regclass::text FROM pg_inherits WHERE inhparent = 'emberlog.dedupe_keys'::regclass"
    ):
        await owner.execute(f"DROP TABLE {name}")
    remaining = await owner.fetch(
        "SELECT inhrelid::regclass::text FROM pg_inherits WHERE inhparent = 'emberlog.events'::regclass"
    )
    for [name] in remaining:
        await owner.execute(f"DROP TABLE {name}")
    assert [outcome.position for outcome in await log.append(instance, [new_event(), new_event()])] == [1, 2]


async def test_appends_and_reads_cross_the_borders_of_partitions(postgres_dsn: str) -> None:
    from adapters.postgres.migrator import migrate

    await migrate(postgres_dsn, partition_width=7)
    log = await PostgresEventLog.connect(postgres_dsn)
    try:
        instance = await log.register_instance("x", 60)
        events = [new_event(expected_version=-1 if n % 3 == 0 else None, stream="tenant/a") for n in range(100)]
        sizes = [1, 6, 7, 8, 40, 38]
        at = 0
        for size in sizes:
            outcomes = await log.append(instance, events[at : at + size])
            assert [outcome.position for outcome in outcomes] == list(range(at + 1, at + size + 1))
            assert await log.head() == at + size
            at += size
        for limit in (3, 7, 100):
            pages: list[int] = []
            while page := await log.read(len(pages), limit):
                pages += [event.position for event in page]
            assert pages == list(range(1, 101))
        assert [event.position for event in await log.read_decisions(0, 1000)] == list(range(1, 101, 3))
        assert {outcome.status for outcome in await log.append(instance, events)} == {AppendStatus.DUPLICATE}
    finally:
        await log.close()


async def _shift_newest(owner: Connection, days: int) -> None:
    """Make the newest event look `days` newer, as if the clock had since jumped back by as much."""
    await owner.execute("ALTER TABLE emberlog.events_000000000001 DISABLE TRIGGER append_only")
    await owner.execute(
        "UPDATE emberlog.events_000000000001 SET recorded_at = recorded_at + make_interval(days => $1)", days
    )


async def _age_keys(owner: Connection, days: int) -> None:
    """Make the keys look `days` older than they are."""
    await owner.execute("SELECT emberlog.ensure_partitions()")
    day = await owner.fetchval("SELECT min(day) FROM emberlog.dedupe_keys") - days
    await owner.execute(
        f"CREATE TABLE emberlog.dedupe_keys_{day} PARTITION OF emberlog.dedupe_keys FOR VALUES IN ({day})"
    )
    await owner.execute("UPDATE emberlog.dedupe_keys SET day = $1", day)


async def test_keys_of_yesterday_are_still_known_and_those_of_the_day_before_are_not(
    log: PostgresEventLog, instance: UUID, owner: Connection
) -> None:
    event = new_event()
    await log.append(instance, [event])
    await _age_keys(owner, 1)
    assert [o.status for o in await log.append(instance, [event])] == [AppendStatus.DUPLICATE]
    assert event.key in await log.find([event.key])
    await _age_keys(owner, 1)
    assert event.key not in await log.find([event.key])
    assert [o.status for o in await log.append(instance, [event])] == [AppendStatus.APPENDED]


async def test_a_clock_that_jumps_back_makes_no_event_older_and_loses_no_key(
    log: PostgresEventLog, instance: UUID, owner: Connection
) -> None:
    await log.append(instance, [new_event()])
    await _shift_newest(owner, 5)
    later = new_event()
    await log.append(instance, [later])
    first, second = await log.read(0, 2)
    assert second.recorded_at == first.recorded_at
    assert [o.status for o in await log.append(instance, [later])] == [AppendStatus.DUPLICATE]
    assert later.key in await log.find([later.key])


async def test_old_keys_are_dropped_and_those_within_the_window_kept(
    log: PostgresEventLog, instance: UUID, owner: Connection
) -> None:
    old, new = new_event(), new_event()
    await log.append(instance, [old])
    await _age_keys(owner, 2)
    await log.append(instance, [new])
    assert await log.drop_old_dedupe_keys() == 1
    assert await log.drop_old_dedupe_keys() == 0
    assert [o.status for o in await log.append(instance, [new])] == [AppendStatus.DUPLICATE]


async def test_the_read_of_a_page_opens_no_partition_but_its_own(postgres_dsn: str) -> None:
    from adapters.postgres.migrator import migrate
    from adapters.postgres.statements import statement

    await migrate(postgres_dsn, partition_width=10)
    owner = await connect(postgres_dsn, "owner", role=False)
    try:
        await owner.execute(
            "SELECT emberlog.ensure_partitions(10, 20); SET enable_seqscan = off; SET enable_bitmapscan = off"
        )
        await owner.execute("SET plan_cache_mode = force_generic_plan")
        await owner.execute(f"PREPARE page(bigint, bigint) AS {statement('read')}")
        plan = "\n".join(row[0] for row in await owner.fetch("EXPLAIN (ANALYZE) EXECUTE page(55, 10)"))
        assert plan.count("Index Scan") == 2, plan
        assert "Seq Scan" not in plan
        assert "Sort" not in plan
    finally:
        await owner.close()


async def test_the_probe_for_duplicates_is_planned_as_index_lookups_on_empty_tables(
    migrated_dsn: str, owner: Connection
) -> None:
    """A table without rows or statistics tempts the planner to read all of it for every batch, and the plan is kept."""
    await owner.execute(
        "SET enable_seqscan = off; SET enable_bitmapscan = off; SET enable_hashjoin = off; SET enable_mergejoin = off"
    )
    await owner.execute("SET plan_cache_mode = force_generic_plan")
    text = files("migrations").joinpath("0015_append.sql").read_text("utf-8")
    probe = text[text.index("        SELECT b.item, d.position, d.fingerprint") : text.index("        UNION ALL")]
    await owner.execute("PREPARE probe(uuid[], integer) AS " + probe.replace("v_keys", "$1").replace("v_day", "$2"))
    plan = "\n".join(row[0] for row in await owner.fetch("EXPLAIN EXECUTE probe(ARRAY[gen_random_uuid()], 1)"))
    assert "Seq Scan" not in plan
    for line in plan.splitlines():
        if "Index Cond" in line:
            assert "day" in line, plan
            assert "key" in line, plan


def test_the_hash_of_an_empty_object_at_position_one_never_changes() -> None:
    event = StoredEvent(1, bytes(16), "acme", "s", None, "t", 1, 0, b"{}", b"")
    text = "1 00000000-0000-0000-0000-000000000000 - 1 0 4 1 1 acmest{}"
    assert content_hash(event) == hashlib.sha256(text.encode()).digest()
