"""Sealing: what is due is sealed, once, in a chain, and nobody who appends waits for it."""

from __future__ import annotations

import asyncio
import hashlib
from uuid import UUID

import asyncpg
import pytest

from adapters.postgres.event_log import PostgresEventLog
from adapters.postgres.pool import Connection, connect
from adapters.postgres.seals import newest_seal, seal, seal_over
from adapters.postgres.verify import verify
from domain.ports.event_log import AppendStatus, LogUnavailable
from domain.seals import Seal, SealedRange, chain_start
from tests.conformance.conftest import new_event
from tests.support.databases import with_user
from tests.support.sealing import PARTITION, append, unguard
from tests.support.waiting import until


async def ranges(owner: Connection) -> list[tuple[int, int, int]]:
    rows = await owner.fetch("SELECT number, first_position, last_position FROM emberlog.seals ORDER BY number")
    return [tuple(row) for row in rows]


async def replace_in_seal(owner: Connection, old: str, new: str) -> None:
    text = await owner.fetchval("SELECT pg_get_functiondef('emberlog.seal'::regproc)")
    assert old in text
    await owner.execute(text.replace(old, new))


async def test_nothing_is_sealed_of_an_empty_log(log: PostgresEventLog) -> None:
    assert await seal(log.pool, rest_seconds=0) == 0
    assert await newest_seal(log.pool) is None
    assert await seal_over(log.pool, 1) is None


async def test_full_ranges_are_sealed_at_once_and_the_rest_when_it_has_waited(
    log: PostgresEventLog, instance: UUID, owner: Connection
) -> None:
    for _ in range(5):
        await append(log, instance, 4_200)
    assert await seal(log.pool) == 2
    assert await seal(log.pool) == 0
    assert await ranges(owner) == [(1, 1, 10_000), (2, 10_001, 20_000)]
    assert await seal(log.pool, rest_seconds=0) == 1
    assert (await ranges(owner))[2:] == [(3, 20_001, 21_000)]
    await append(log, instance, 1)
    assert await seal(log.pool, rest_seconds=0) == 1
    assert (await ranges(owner))[3:] == [(4, 21_001, 21_001)]


async def test_a_rest_is_as_old_as_its_oldest_event(log: PostgresEventLog, instance: UUID, owner: Connection) -> None:
    await append(log, instance, 2)
    await unguard(owner)
    await owner.execute(f"UPDATE {PARTITION} SET recorded_at = recorded_at - interval '61 s' WHERE position = 1")
    assert await seal(log.pool, rest_seconds=62) == 0
    assert await seal(log.pool) == 1
    assert await ranges(owner) == [(1, 1, 2)]


async def test_what_only_tells_of_maintenance_does_not_keep_the_sealing_going(
    log: PostgresEventLog, instance: UUID, owner: Connection
) -> None:
    await append(log, instance, 1)
    assert await seal(log.pool, rest_seconds=0) == 1
    await log.append(instance, [new_event(type="maintenance.ran")])
    assert await seal(log.pool, rest_seconds=0) == 0
    await unguard(owner)
    await owner.execute(f"UPDATE {PARTITION} SET recorded_at = recorded_at - interval '25 h'")
    assert await seal(log.pool, rest_seconds=0) == 1


async def test_a_seal_holds_what_its_description_says(log: PostgresEventLog, instance: UUID, owner: Connection) -> None:
    await append(log, instance, 3)
    await seal(log.pool, rest_seconds=0)
    await append(log, instance, 2)
    await seal(log.pool, rest_seconds=0)
    events = await log.read(0, 10)
    previous = chain_start((await log.identity()).installation)
    for row in await owner.fetch(
        "SELECT number, first_position, last_position, emberlog.micros(sealed_at), previous, events_hash, hash, marks "
        "FROM emberlog.seals ORDER BY number"
    ):
        made = Seal(*row)
        hashes = [event.content_hash for event in events[made.first_position - 1 : made.last_position]]
        assert made.previous == previous
        assert made.events_hash == hashlib.sha256(b"".join(hashes)).digest()
        assert made.marks == b"".join(one[:4] for one in hashes)
        assert made.hash == made.computed_hash()
        previous = made.hash
    assert await newest_seal(log.pool) == SealedRange(2, 4, 5, previous)
    over = await seal_over(log.pool, 3)
    assert over is not None
    assert (over.number, over.first_position, over.last_position) == (1, 1, 3)
    assert await seal_over(log.pool, 6) is None


async def test_a_long_backlog_is_sealed_in_bounded_transactions(
    log: PostgresEventLog, instance: UUID, owner: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    for _ in range(3):
        await append(log, instance, 10_000)
    await append(log, instance, 7)
    monkeypatch.setattr("adapters.postgres.seals._A_CALL", 2)
    assert await seal(log.pool, rest_seconds=0) == 4
    transactions = await owner.fetchval("SELECT count(DISTINCT xmin::text) FROM emberlog.seals")
    assert transactions == 2


async def test_an_append_does_not_wait_for_a_sealer(log: PostgresEventLog, instance: UUID, owner: Connection) -> None:
    await append(log, instance, 5)
    async with owner.transaction():
        assert await owner.fetchval("SELECT emberlog.seal('0')") == 1
        async with asyncio.timeout(4):
            [appended] = await log.append(instance, [new_event()])
        assert appended.status is AppendStatus.APPENDED
        assert await newest_seal(log.pool) is None, "the sealer's transaction is still open"


async def test_a_sealer_that_took_the_logs_lock_would_hold_appends_up(
    log: PostgresEventLog, instance: UUID, owner: Connection
) -> None:
    # The negative control.
    await append(log, instance, 5)
    await replace_in_seal(
        owner, "SELECT h.position INTO v_head", "PERFORM emberlog.lock_log(); SELECT h.position INTO v_head"
    )
    await owner.execute("ALTER FUNCTION emberlog.append SET lock_timeout = '50ms'")
    async with owner.transaction():
        await owner.execute("SELECT emberlog.seal('0')")
        with pytest.raises(LogUnavailable):
            await log.append(instance, [new_event()])


async def test_a_sealer_does_not_wait_for_an_append(log: PostgresEventLog, instance: UUID, owner: Connection) -> None:
    await append(log, instance, 5)
    async with owner.transaction():
        await owner.execute("SELECT emberlog.lock_log()")
        async with asyncio.timeout(5):
            assert await seal(log.pool, rest_seconds=0) == 1


async def test_of_two_sealers_the_second_leaves_it_to_the_first(
    log: PostgresEventLog, instance: UUID, owner: Connection
) -> None:
    await append(log, instance, 5)
    async with owner.transaction():
        assert await owner.fetchval("SELECT emberlog.seal('0')") == 1
        async with asyncio.timeout(5):
            assert await seal(log.pool, rest_seconds=0) == 0
    assert await seal(log.pool, rest_seconds=0) == 0
    assert await ranges(owner) == [(1, 1, 5)]


async def test_without_their_lock_two_sealers_would_collide(
    log: PostgresEventLog, instance: UUID, owner: Connection
) -> None:
    # The negative control: the second one waits for the first one's row, and then fails.
    await append(log, instance, 5)
    await replace_in_seal(owner, "NOT pg_try_advisory_xact_lock(4993438714461021451)", "false")
    async with owner.transaction():
        await owner.execute("SELECT emberlog.seal('0')")
        second = asyncio.create_task(seal(log.pool, rest_seconds=0))
        waiting = (
            "SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'transactionid' AND datname = current_database()"
        )
        await until(lambda: owner.fetchval(waiting), what="the second sealer waits for the first one's row")
    with pytest.raises(asyncpg.UniqueViolationError):
        await second


async def test_what_is_sealed_while_others_append_is_whole(
    migrated_dsn: str, log: PostgresEventLog, instance: UUID
) -> None:
    dsn = with_user(migrated_dsn, "emberlog_gateway")
    done = asyncio.Event()

    async def write() -> None:
        writer = await PostgresEventLog.connect(dsn, pool_size=1, readers=1)
        try:
            for size in (1, 700, 33, 1200) * 4:
                await append(writer, instance, size)
        finally:
            await writer.close()

    async def keep_sealing() -> int:
        made = 0
        while not done.is_set():
            made += await seal(log.pool, rest_seconds=0)
        return made

    sealers = [asyncio.create_task(keep_sealing()) for _ in range(2)]
    await asyncio.gather(write(), write(), write())
    done.set()
    made = sum(await asyncio.gather(*sealers)) + await seal(log.pool, rest_seconds=0)
    verdict = await verify(log.pool, log)
    assert verdict.intact, verdict.finding
    assert (verdict.head, verdict.events, verdict.unsealed) == (23_208, 23_208, 0)
    assert verdict.seals == made > 3


@pytest.mark.parametrize(
    "change",
    [
        "UPDATE emberlog.seals SET hash = ''",
        "DELETE FROM emberlog.seals",
        "TRUNCATE emberlog.seals",
    ],
)
async def test_a_seal_is_never_changed_not_even_by_its_owner(
    migrated_dsn: str, log: PostgresEventLog, instance: UUID, owner: Connection, change: str
) -> None:
    await append(log, instance, 1)
    await seal(log.pool, rest_seconds=0)
    with pytest.raises(asyncpg.PostgresError, match="append-only") as refused:
        await owner.execute(change)
    assert refused.value.sqlstate == "EL002"
    application = await connect(with_user(migrated_dsn, "emberlog_gateway"), "application")
    try:
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            await application.execute(change)
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            await application.execute("INSERT INTO emberlog.seals SELECT * FROM emberlog.seals")
    finally:
        await application.close()


async def test_a_log_with_a_gap_is_not_sealed(log: PostgresEventLog, instance: UUID, owner: Connection) -> None:
    await append(log, instance, 5)
    await unguard(owner)
    await owner.execute(f"DELETE FROM {PARTITION} WHERE position = 3")
    with pytest.raises(asyncpg.PostgresError, match="of the events 1 to 5 only 4 are there"):
        await seal(log.pool, rest_seconds=0)
