"""One gap-free order, whatever overlaps: open transactions, rollbacks, crashes, long sessions elsewhere, and pauses where they hurt most."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from uuid import UUID, uuid4

import asyncpg
import pytest

from adapters.embedded import EmbeddedServices
from adapters.postgres.event_log import PostgresEventLog
from adapters.postgres.pool import Connection
from domain.ports.event_log import ANY_VERSION, AppendStatus, InstanceFenced, LogDamaged, LogUnavailable
from tests.conformance.conftest import new_event
from tests.support.appending import batch_of, whole_batches
from tests.support.databases import create_database, drop_database, with_database
from tests.support.runner import Child, running_python
from tests.support.transactions import open_append, waiting_for_the_lock
from tests.support.waiting import until

LOCK = 4993438714461021447
"""The number of the log's lock; locks of other databases have the same numbers and are other locks."""


async def positions(log: PostgresEventLog) -> list[int]:
    return [event.position for event in await log.read(0, 10_000)]


# -- overlapping transactions -------------------------------------------------------------------------------------------


async def test_an_append_waits_for_one_that_is_open_and_readers_see_neither_before_its_commit(
    log: PostgresEventLog, instance: UUID, owner: Connection, app_dsn: str
) -> None:
    async with open_append(app_dsn) as first:
        assert [o.position for o in await first.append(instance, [new_event(), new_event()])] == [1, 2]
        second = asyncio.create_task(log.append(instance, [new_event()]))
        await waiting_for_the_lock(owner)
        assert await log.head() == 0
        assert await log.read(0, 10) == []
        assert not second.done()
        await first.commit()
        assert [o.position for o in await second] == [3]
    assert await positions(log) == [1, 2, 3]


async def test_an_append_that_is_rolled_back_leaves_no_hole_and_its_events_can_be_sent_again(
    log: PostgresEventLog, instance: UUID, owner: Connection, app_dsn: str
) -> None:
    batch = [new_event(), new_event(stream="tenant/a", expected_version=0)]
    async with open_append(app_dsn) as first:
        await first.append(instance, batch)
        second = asyncio.create_task(log.append(instance, [new_event(stream="tenant/a", expected_version=0)]))
        await waiting_for_the_lock(owner)
        await first.roll_back()
        assert [(o.status, o.position, o.version) for o in await second] == [(AppendStatus.APPENDED, 1, 1)]
    again = await log.append(instance, batch)
    assert [(o.status, o.position, o.version) for o in again] == [
        (AppendStatus.APPENDED, 2, None),
        (AppendStatus.CONFLICT, None, 1),
    ]
    assert await positions(log) == [1, 2]


@pytest.mark.parametrize("middle", ["commits", "rolls back"])
async def test_three_overlapping_appends_take_dense_positions_in_the_order_of_their_commits(
    log: PostgresEventLog, instance: UUID, owner: Connection, app_dsn: str, middle: str
) -> None:
    one, two, three = new_event(), new_event(), new_event()
    async with open_append(app_dsn) as first, open_append(app_dsn) as second, open_append(app_dsn) as third:
        await first.append(instance, [one])
        appending_second = asyncio.create_task(second.append(instance, [two]))
        await waiting_for_the_lock(owner, 1)
        appending_third = asyncio.create_task(third.append(instance, [three]))
        await waiting_for_the_lock(owner, 2)
        await first.commit()
        await appending_second
        assert not appending_third.done()
        assert await positions(log) == [1]
        await (second.commit() if middle == "commits" else second.roll_back())
        await appending_third
        await third.commit()
    wanted = [one, two, three] if middle == "commits" else [one, three]
    stored = await log.read(0, 10)
    assert [event.event_id for event in stored] == [event.event_id for event in wanted]
    assert [event.position for event in stored] == list(range(1, len(wanted) + 1))


async def test_fencing_waits_for_an_append_that_is_open_and_its_head_lies_behind_it(
    log: PostgresEventLog, instance: UUID, owner: Connection, app_dsn: str
) -> None:
    async with open_append(app_dsn) as first:
        await first.append(instance, [new_event(), new_event()])
        fencing = asyncio.create_task(log.fence_instance(instance))
        await waiting_for_the_lock(owner)
        await first.commit()
        assert await fencing == 2
    with pytest.raises(InstanceFenced):
        await log.append(instance, [new_event()])


async def test_an_append_that_waited_while_its_instance_was_fenced_is_refused(
    log: PostgresEventLog, instance: UUID, owner: Connection, app_dsn: str
) -> None:
    other = await log.register_instance("another", 600)
    async with open_append(app_dsn) as first:
        await first.append(other, [new_event()])
        fencing = asyncio.create_task(log.fence_instance(instance))
        await waiting_for_the_lock(owner, 1)
        appending = asyncio.create_task(log.append(instance, [new_event()]))
        await waiting_for_the_lock(owner, 2)
        await first.commit()
        assert await fencing == 1
        with pytest.raises(InstanceFenced):
            await appending
    assert await log.head() == 1


# -- what others do in the cluster --------------------------------------------------------------------------------------


@asynccontextmanager
async def _writing_for_long_in(dsn: str) -> AsyncIterator[None]:
    """A write transaction that stays open, with a snapshot of before and with a lock of the number of ours."""
    connection = await asyncpg.connect(dsn)
    try:
        async with connection.transaction(isolation="repeatable_read"):
            await connection.execute("CREATE TABLE public.elsewhere AS SELECT 1 AS one")
            assert await connection.fetchval("SELECT pg_current_xact_id_if_assigned() IS NOT NULL")
            if not await connection.fetchval("SELECT to_regclass('emberlog.events') IS NOT NULL"):
                await connection.execute(f"SELECT pg_advisory_xact_lock({LOCK})")
            yield
    finally:
        connection.terminate()


@asynccontextmanager
async def _idle_in_transaction_in(dsn: str) -> AsyncIterator[None]:
    """A session that has read the log, its keys and a view, and then says no more."""
    connection = await asyncpg.connect(dsn)
    try:
        async with connection.transaction():
            for table in ("emberlog.events", "emberlog.dedupe_keys", "emberlog.decision_streams", "emberlog.instances"):
                await connection.fetch(f"SELECT count(*) FROM {table}")
            yield
    finally:
        connection.terminate()


@pytest.mark.parametrize(
    "who", ["writes in another database of the cluster", "writes in this database", "is idle in a transaction"]
)
async def test_a_session_that_stays_open_for_long_stalls_neither_appends_nor_readers(
    services: EmbeddedServices,
    migrated_dsn: str,
    log: PostgresEventLog,
    instance: UUID,
    owner: Connection,
    who: str,
) -> None:
    elsewhere = await create_database(services.owner_dsn)
    session = {
        "writes in another database of the cluster": _writing_for_long_in(with_database(services.owner_dsn, elsewhere)),
        "writes in this database": _writing_for_long_in(migrated_dsn),
        "is idle in a transaction": _idle_in_transaction_in(migrated_dsn),
    }[who]
    try:
        await log.append(instance, [new_event()])
        async with session, asyncio.timeout(4):  # less than the lock timeout: nothing here may wait for the session
            batch = [new_event(), new_event(stream="tenant/a", expected_version=ANY_VERSION)]
            assert [o.position for o in await log.append(instance, batch)] == [2, 3]
            assert [o.status for o in await log.append(instance, batch)] == [AppendStatus.DUPLICATE] * 2
            assert await log.head() == 3
            assert await positions(log) == [1, 2, 3]
            assert [event.position for event in await log.read_decisions(0, 10)] == [3]
            assert len(await log.find([event.key for event in batch])) == 2
            # New partitions are attached beside it.
            assert await owner.fetchval("SELECT emberlog.ensure_partitions(p_ahead => 4)") > 0
    finally:
        await drop_database(services.owner_dsn, elsewhere)


# -- a process killed in the middle -------------------------------------------------------------------------------------


@asynccontextmanager
async def _appending(app_dsn: str) -> AsyncIterator[Child]:
    async with running_python(["-m", "tests.support.appending", app_dsn]) as child:
        yield child


async def _appenders(owner: Connection) -> set[int]:
    """The server's sessions that append to this database."""
    rows = await owner.fetch(
        "SELECT pid FROM pg_stat_activity WHERE datname = current_database() AND application_name = 'emberlog log appender'"
    )
    return {row[0] for row in rows}


async def _sessions_are_gone(owner: Connection, *, but: set[int]) -> None:
    async def gone() -> bool:
        return await _appenders(owner) <= but

    await until(gone, what="the server has noticed that its client is dead")


async def test_a_process_killed_while_it_appends_leaves_whole_batches_and_the_next_writes_each_once(
    log: PostgresEventLog, owner: Connection, app_dsn: str
) -> None:
    answered = -1
    others = await _appenders(owner)
    for acknowledged in (1, 4, 9, 16):
        async with _appending(app_dsn) as child:
            while (number := int(await child.line())) < answered + acknowledged:
                pass
            await child.kill()
            answered = max(answered, number)
        await _sessions_are_gone(owner, but=others)
        stored = whole_batches([event.event_id for event in await log.read(0, 100_000)])
        assert stored == list(range(len(stored)))
        assert len(stored) > answered, "a batch that was acknowledged is missing"


async def test_a_process_killed_while_its_batch_waits_leaves_all_of_it_or_nothing(
    log: PostgresEventLog, instance: UUID, owner: Connection, app_dsn: str
) -> None:
    await log.append(instance, batch_of(0))
    others = await _appenders(owner)
    async with _appending(app_dsn) as child, owner.transaction():
        await owner.execute("SELECT emberlog.lock_log()")
        await waiting_for_the_lock(owner)
        child.send(signal.SIGKILL)
        await child.wait()
    await _sessions_are_gone(owner, but=others)
    assert whole_batches([event.event_id for event in await log.read(0, 1000)]) in ([0], [0, 1])
    async with _appending(app_dsn) as child:
        while int(await child.line()) < 5:
            pass
    await _sessions_are_gone(owner, but=others)
    stored = whole_batches([event.event_id for event in await log.read(0, 100_000)])
    assert stored == list(range(len(stored)))
    assert len(stored) > 5


def test_a_batch_that_is_torn_twice_or_there_in_part_is_noticed() -> None:
    """Negative control of the two tests above."""
    one, two = ([event.event_id for event in batch_of(number)] for number in (0, 1))
    assert whole_batches([*two, *one]) == [1, 0]
    for broken in ([*one, *two[:-1]], [*one[:-1], *two, one[-1]], [*one, *one], [*one[:10], *two[10:]]):
        with pytest.raises(AssertionError):
            whole_batches(broken)


# -- the soak -----------------------------------------------------------------------------------------------------------

WRITERS, READERS, BATCHES = 4, 3, 15

_ARGUMENTS = "SELECT pg_get_function_arguments(p.oid) FROM pg_proc p WHERE p.oid = 'emberlog.append'::regproc"
_RENAME = "DO $$ BEGIN EXECUTE 'ALTER FUNCTION ' || 'emberlog.append'::regproc::regprocedure || ' RENAME TO append_itself'; END $$"
_SLOW = """
CREATE FUNCTION emberlog.append({arguments}) LANGUAGE plpgsql SECURITY DEFINER AS $$
BEGIN
    PERFORM pg_sleep(random() * 0.003);
    SELECT a.first_position, a.statuses, a.positions, a.versions INTO first_position, statuses, positions, versions
    FROM emberlog.append_itself($1, $2, $3, $4, $5, $6, $7, $8, $9, $10) a;
    PERFORM pg_sleep(random() * 0.006);  -- positions are taken and not yet visible
END $$
"""


async def _slow_down(owner: Connection) -> None:
    """Pauses of random length within each append's transaction, before and behind its work."""
    arguments = await owner.fetchval(_ARGUMENTS)
    await owner.execute(_RENAME)
    await owner.execute(_SLOW.format(arguments=arguments))


async def _take_the_lock_away(owner: Connection) -> None:
    body = await owner.fetchval(
        "SELECT prosrc FROM pg_proc WHERE proname = 'append' AND pronamespace = 'emberlog'::regnamespace"
    )
    assert "emberlog.lock_log()" in body, "the append takes its lock elsewhere: this control would control nothing"
    await owner.execute("CREATE OR REPLACE FUNCTION emberlog.lock_log() RETURNS void LANGUAGE sql AS 'SELECT 1'")


async def _soak(dsn: str) -> list[list[int]]:
    """Writers and readers at once, each over connections of its own; what each reader saw. The last one reads decisions only."""
    done = asyncio.Event()
    async with AsyncExitStack() as stack:
        logs = [await PostgresEventLog.connect(dsn, pool_size=1, readers=1) for _ in range(WRITERS + READERS)]
        for log in logs:
            stack.push_async_callback(log.close)

        async def write(log: PostgresEventLog, number: int) -> None:
            instance = await log.register_instance("soak", 60)
            for _ in range(BATCHES):
                decision = new_event(stream=f"tenant/{number % 2}", expected_version=ANY_VERSION)
                await log.append(instance, [new_event(), decision, new_event()])

        async def follow(log: PostgresEventLog, page: int, decisions: bool) -> list[int]:
            seen: list[int] = []
            while True:
                last = done.is_set()
                read = log.read_decisions if decisions else log.read
                events = await read(seen[-1] if seen else 0, page)
                seen += [event.position for event in events]
                if last and not events:
                    return seen

        readers = [
            asyncio.create_task(follow(log, page, decisions))
            for log, page, decisions in zip(logs[WRITERS:], (100, 7, 100), (False, False, True), strict=True)
        ]
        try:
            await asyncio.gather(*(write(log, number) for number, log in enumerate(logs[:WRITERS])))
            done.set()
            return [await reader for reader in readers]
        finally:
            for reader in readers:
                reader.cancel()
            await asyncio.gather(*readers, return_exceptions=True)


def _sound(seen: list[list[int]], decisions: list[int]) -> bool:
    everything = list(range(1, WRITERS * BATCHES * 3 + 1))
    return seen == [everything, everything, decisions] and len(decisions) == WRITERS * BATCHES


async def _decisions(owner: Connection) -> list[int]:
    rows = await owner.fetch("SELECT position FROM emberlog.events WHERE version IS NOT NULL ORDER BY position")
    return [row[0] for row in rows]


async def test_every_reader_sees_every_position_once_and_in_order_under_many_writers_with_random_pauses(
    app_dsn: str, owner: Connection
) -> None:
    await _slow_down(owner)
    assert _sound(await _soak(app_dsn), await _decisions(owner))


async def test_without_the_lock_the_same_soak_fails(app_dsn: str, owner: Connection) -> None:
    await _take_the_lock_away(owner)
    await _slow_down(owner)
    try:
        seen = await _soak(app_dsn)
    except (LogUnavailable, LogDamaged):  # two took one position, or a reader met a gap
        return
    assert not _sound(seen, await _decisions(owner))


# -- contiguity ---------------------------------------------------------------------------------------------------------

_INSERT = """
INSERT INTO emberlog.events (position, event_id, tenant, stream, type, schema_version, recorded_at, data, content_hash)
VALUES ($1, $2, 'acme', 's', 't', 1, clock_timestamp(), '{}', '')
"""


async def test_positions_of_a_sequence_would_be_lost_to_a_reader_that_ours_stops(
    log: PostgresEventLog, migrated_dsn: str, owner: Connection
) -> None:
    """What the lock is for: the first taker of a position commits last. A reader that trusts what it sees goes past it."""
    await owner.execute("CREATE SEQUENCE public.positions")
    first = await asyncpg.connect(migrated_dsn)
    try:
        async with first.transaction():
            await first.execute(_INSERT, await first.fetchval("SELECT nextval('public.positions')"), uuid4())
            await owner.execute(_INSERT, await owner.fetchval("SELECT nextval('public.positions')"), uuid4())
            trusting = [row[0] for row in await owner.fetch("SELECT position FROM emberlog.events WHERE position > 0")]
            assert trusting == [2]
            with pytest.raises(LogDamaged, match="no event at position 1,"):
                await log.read(0, 10)
    finally:
        await first.close()
    assert [row[0] for row in await owner.fetch("SELECT position FROM emberlog.events WHERE position > 2")] == []
    assert await positions(log) == [1, 2]


@pytest.mark.parametrize("missing", [1, 2, 3])
async def test_a_page_with_a_hole_is_refused_and_says_where(
    log: PostgresEventLog, instance: UUID, owner: Connection, missing: int
) -> None:
    await log.append(instance, [new_event() for _ in range(4)])
    await owner.execute("ALTER TABLE emberlog.events_000000000001 DISABLE TRIGGER append_only")
    await owner.execute("DELETE FROM emberlog.events_000000000001 WHERE position = $1", missing)
    with pytest.raises(LogDamaged, match=f"no event at position {missing},"):
        await log.read(0, 10)
    assert [event.position for event in await log.read(missing, 10)] == list(range(missing + 1, 5))
