"""Periodic tasks: each run once by whoever takes its lease, by the database's clock, and told in the log once."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from datetime import timedelta
from pathlib import Path
from uuid import UUID, uuid4

import pytest
from structlog.testing import capture_logs

from adapters.embedded import EmbeddedServices
from adapters.postgres import maintenance
from adapters.postgres.migrator import load_migrations, migrate
from adapters.postgres.pool import Connection, connect
from domain.events import SYSTEM_TENANT
from domain.ports.event_log import Appended, NewEvent
from gateway.maintenance.scheduler import Scheduler
from gateway.maintenance.tasks import gateway_tasks
from gateway.places import Places
from gateway.settings import Settings
from projections.worker import reason
from tests.support.archiving import age, fill
from tests.support.databases import with_user
from tests.support.maintaining import DUE, HOUR, Counted, Gatewayish, due, gatewayish, row, running
from tests.support.projecting import Recorded, generated, requested, write_log
from tests.support.waiting import until


@pytest.fixture
async def one(migrated_dsn: str) -> AsyncIterator[Gatewayish]:
    async with gatewayish(migrated_dsn) as made:
        yield made


@pytest.fixture
async def other(migrated_dsn: str) -> AsyncIterator[Gatewayish]:
    async with gatewayish(migrated_dsn) as made:
        yield made


# -- who runs a task ----------------------------------------------------------------------------------------------------


async def test_of_two_schedulers_one_runs_each_due_task_once(
    one: Gatewayish, other: Gatewayish, owner: Connection
) -> None:
    work = [Counted(f"task {n}") for n in range(5)]
    first, second = (g.scheduler(*(w.task for w in work)) for g in (one, other))
    await due(owner, first)
    async with running(first, second):
        await until(lambda: len(first.states) == len(second.states) == 5, what="both have asked for every task")

        async def all_told() -> bool:
            return len(await one.ran()) >= 5

        await until(all_told, what="every run is in the log")
        for scheduler in (first, second):
            scheduler.states.clear()
        await until(lambda: len(first.states) == len(second.states) == 5, what="both have asked again")
    assert [w.runs for w in work] == [1] * 5
    assert sorted(data.task for data, _, _ in await one.ran()) == sorted(w.task.name for w in work)


async def test_a_task_is_due_again_a_period_after_its_run_and_not_before(one: Gatewayish, owner: Connection) -> None:
    work = Counted()
    scheduler = one.scheduler(work.task)
    await due(owner, scheduler)
    assert await scheduler.once(work.task)
    assert not await scheduler.once(work.task)
    left = await owner.fetchval("SELECT next_run_at - last_ended_at FROM emberlog.maintenance")
    assert abs(left - HOUR) < timedelta(seconds=1)
    await owner.execute(DUE)
    assert await scheduler.once(work.task)
    assert work.runs == 2


async def _claims_at_once(one: Gatewayish, owner: Connection) -> list[int | None]:
    """Two processes claim the same due task, the second while the first's claim is not committed."""
    await one.log.pool.fetchval("SELECT emberlog.claim_maintenance('t', $1, '1 h', '60 s')", uuid4())
    await owner.execute(DUE)
    claim = "SELECT emberlog.claim_maintenance('t', $1, '1 h', '60 s')"
    async with one.log.pool.acquire() as first, one.log.pool.acquire() as second:
        transaction = first.transaction()
        await transaction.start()
        fences = [await first.fetchval(claim, uuid4())]
        claiming = asyncio.create_task(second.fetchval(claim, uuid4()))
        pid = second.get_server_pid()

        async def waits_or_done() -> bool:
            waiting = "SELECT EXISTS (SELECT FROM pg_stat_activity WHERE pid = $1 AND wait_event_type = 'Lock')"
            return claiming.done() or bool(await owner.fetchval(waiting, pid))

        await until(waits_or_done, what="the second claim waits or has its answer")
        await transaction.commit()
        return [*fences, await claiming]


async def test_two_claims_at_once_make_one_owner(one: Gatewayish, owner: Connection) -> None:
    assert await _claims_at_once(one, owner) == [1, None]


async def test_without_the_lock_of_the_claim_two_would_own_it(one: Gatewayish, owner: Connection) -> None:
    [sql] = [m.sql for m in load_migrations() if m.name == "0053_maintenance"]
    function = sql[sql.index("CREATE FUNCTION") : sql.index("REVOKE")]
    assert "FOR UPDATE SKIP LOCKED" in function
    await owner.execute(function.replace("FOR UPDATE SKIP LOCKED", "").replace("CREATE", "CREATE OR REPLACE", 1))
    assert await _claims_at_once(one, owner) == [1, 2]


async def test_a_long_run_keeps_its_lease(one: Gatewayish, other: Gatewayish, owner: Connection) -> None:
    work, rival = Counted(), Counted()
    mine, theirs = one.scheduler(work.task, lease=2.0), other.scheduler(rival.task, lease=2.0)
    await due(owner, mine)
    work.go.clear()
    run = asyncio.create_task(mine.once(work.task))
    await work.begun.wait()
    first = (await row(owner))["lease_until"]

    async def renewed_twice() -> bool:
        return bool((await row(owner))["lease_until"] > first + timedelta(seconds=2.1))

    async with running(theirs):
        await until(renewed_twice, what="the lease outlasts its first length")
        work.go.set()
        assert await run
    assert (work.runs, rival.runs) == (1, 0)


# -- owners that die or are late ----------------------------------------------------------------------------------------

_OWNER = """
import asyncio, sys
from datetime import timedelta
from uuid import uuid4
from adapters.postgres.event_log import PostgresEventLog
from adapters.appender import Appender
from adapters.embedded import EmbeddedServices
from gateway.maintenance.scheduler import Scheduler
from gateway.maintenance.task import Task
from gateway.telemetry.logs import configure_logs

async def main(dsn, lease):
    log = await PostgresEventLog.connect(dsn)
    instance = await log.register_instance("child", 3600)
    async def run():
        print("begun", flush=True)
        await asyncio.to_thread(sys.stdin.readline)
        return {"late": 1}
    task = Task("chores", timedelta(hours=1), run)
    scheduler = Scheduler(log.pool, [task], Appender(log, instance).append, lambda: instance, lease_seconds=lease)
    print("finished" if await scheduler.once(task) else "refused", flush=True)

configure_logs("error", "json")  # to standard error
asyncio.run(main(sys.argv[1], float(sys.argv[2])))
"""


@asynccontextmanager
async def owner_process(dsn: str, lease: float) -> AsyncIterator[asyncio.subprocess.Process]:
    """Another process that has taken the task and is at it until it is sent a line."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", _OWNER, dsn, str(lease), stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE
    )
    assert process.stdout is not None
    try:
        async with asyncio.timeout(20):
            assert await process.stdout.readline() == b"begun\n"
        yield process
    finally:
        with suppress(ProcessLookupError):
            os.kill(process.pid, signal.SIGCONT)
            process.kill()
        await process.wait()


async def test_the_task_of_a_killed_owner_is_taken_over_when_its_lease_has_run_out(
    one: Gatewayish, owner: Connection, migrated_dsn: str
) -> None:
    work = Counted()
    scheduler = one.scheduler(work.task)
    await due(owner, scheduler)
    async with owner_process(with_user(migrated_dsn, "emberlog_gateway"), 4.0) as process:
        process.kill()
        await process.wait()
        assert not await scheduler.once(work.task), "its lease still runs"
        async with running(scheduler):
            await asyncio.wait_for(work.begun.wait(), 10)
            await until(lambda: scheduler.states["chores"].last_succeeded_at, what="the run has ended")
    assert ((await row(owner))["fence"], work.runs) == (2, 1)


async def test_an_owner_that_was_stopped_and_returns_late_changes_and_logs_nothing(
    one: Gatewayish, owner: Connection, migrated_dsn: str
) -> None:
    work = Counted()
    scheduler = one.scheduler(work.task)
    await due(owner, scheduler)
    async with owner_process(with_user(migrated_dsn, "emberlog_gateway"), 1.0) as process:
        os.kill(process.pid, signal.SIGSTOP)

        async def taken_over() -> bool:
            return await scheduler.once(work.task)

        await until(taken_over, what="the stopped owner's lease has run out")
        after = await row(owner)
        os.kill(process.pid, signal.SIGCONT)
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(b"\n")
        async with asyncio.timeout(20):
            assert await process.stdout.readline() == b"refused\n"
    assert await row(owner) == after
    assert [data.result for data, _, _ in await one.ran()] == [{"done": 1}]


async def test_a_late_finish_and_a_late_renewal_are_refused_by_their_fence(one: Gatewayish, owner: Connection) -> None:
    pool, lease = one.log.pool, timedelta(seconds=60)

    async def claim() -> int | None:
        return await maintenance.claim(pool, "chores", one.instance, period=HOUR, lease=lease)

    await claim()
    await owner.execute(DUE)
    late = await claim()
    assert late == 1
    await owner.execute("UPDATE emberlog.maintenance SET lease_until = clock_timestamp() - interval '1 s'")
    assert await claim() == 2
    before = await row(owner)
    assert not await maintenance.renew(pool, "chores", late, lease=lease)
    assert not await maintenance.finish(pool, "chores", late, period=HOUR, error=None)
    assert not await maintenance.finish(pool, "chores", late, period=HOUR, error="late")
    assert await row(owner) == before
    assert await maintenance.finish(pool, "chores", 2, period=HOUR, error=None)
    assert not await maintenance.finish(pool, "chores", 2, period=HOUR, error=None), "it is over"
    assert not await maintenance.renew(pool, "chores", 2, lease=lease)


async def test_a_run_whose_lease_is_lost_is_cancelled(one: Gatewayish, owner: Connection) -> None:
    work = Counted()
    work.go.clear()
    scheduler = one.scheduler(work.task, lease=0.3)
    await due(owner, scheduler)
    run = asyncio.create_task(scheduler.once(work.task))
    await work.begun.wait()
    await owner.execute("UPDATE emberlog.maintenance SET fence = fence + 1")
    async with asyncio.timeout(10):
        assert not await run
    assert await one.ran() == []


# -- failures -----------------------------------------------------------------------------------------------------------


async def test_a_failing_task_stops_no_other_and_is_retried_after_growing_pauses_up_to_its_period(
    one: Gatewayish, owner: Connection
) -> None:
    bad, good = Counted("bad", period=timedelta(minutes=3)), Counted("good")
    bad.error = RuntimeError("no luck")
    scheduler = one.scheduler(bad.task, good.task)
    await due(owner, scheduler)
    async with running(scheduler):
        await until(
            lambda: {"bad", "good"} <= scheduler.states.keys() and scheduler.states["good"].last_succeeded_at,
            what="the good one ran",
        )
        await until(lambda: scheduler.states["bad"].failures == 1, what="the bad one failed")
    assert good.runs == 1
    pauses = []
    for _ in range(3):
        pauses.append(
            await owner.fetchval("SELECT next_run_at - last_ended_at FROM emberlog.maintenance WHERE task = 'bad'")
        )
        assert not await scheduler.once(bad.task), "its pause is not over"
        await owner.execute(DUE)
        assert await scheduler.once(bad.task)
    assert [round(p.total_seconds()) for p in pauses] == [60, 120, 180]
    found = await row(owner, "bad")
    assert (found["failures"], found["last_error"], found["last_succeeded_at"]) == (4, "RuntimeError: no luck", None)
    bad.error = None
    await owner.execute(DUE)
    assert await scheduler.once(bad.task)
    found = await row(owner, "bad")
    assert (found["failures"], found["last_error"]) == (0, None)


async def test_a_failed_run_is_an_event_with_its_error(one: Gatewayish, owner: Connection) -> None:
    work = Counted()
    work.error = ValueError("a\x00b\x1ec")
    scheduler = one.scheduler(work.task)
    await due(owner, scheduler)
    assert await scheduler.once(work.task)
    [(data, _, _)] = await one.ran()
    assert (data.task, data.result, data.error) == ("chores", {}, "ValueError: a b c")


async def test_a_run_that_was_cancelled_from_within_is_asked_for_again_and_ends_no_scheduler(
    one: Gatewayish, owner: Connection
) -> None:
    work = Counted()
    work.error = asyncio.CancelledError()
    scheduler = one.scheduler(work.task)
    await due(owner, scheduler)
    assert not await scheduler.once(work.task)
    assert await one.ran() == []
    work.error = None
    await owner.execute("UPDATE emberlog.maintenance SET lease_until = '-infinity'")
    assert await scheduler.once(work.task)
    assert work.runs == 2


async def test_an_error_of_postgres_is_told_without_the_values_it_quotes(one: Gatewayish) -> None:
    with pytest.raises(Exception) as caught:  # noqa: PT011
        await one.log.pool.fetchval("SELECT 'secret'::text::integer")
    assert "secret" in str(caught.value)
    assert "22P02" in reason(caught.value)
    assert "secret" not in reason(caught.value)


async def test_a_scheduler_goes_on_after_the_database_was_away(one: Gatewayish, owner: Connection) -> None:
    work = Counted()
    scheduler = one.scheduler(work.task)
    await due(owner, scheduler)
    await owner.execute("ALTER FUNCTION emberlog.claim_maintenance RENAME TO away")
    with capture_logs() as said:
        async with running(scheduler):
            await until(lambda: [e for e in said if e["event"] == "maintenance_postponed"], what="it has asked in vain")
            assert work.runs == 0
            await owner.execute("ALTER FUNCTION emberlog.away RENAME TO claim_maintenance")
            await asyncio.wait_for(work.begun.wait(), 10)


# -- what the log says --------------------------------------------------------------------------------------------------


async def test_a_run_is_one_fact_of_the_system_however_often_it_is_sent(one: Gatewayish, owner: Connection) -> None:
    work = Counted()

    async def twice(event: NewEvent) -> Appended:
        await one.appender.append(event)
        return await one.appender.append(event)

    scheduler = Scheduler(one.log.pool, [work.task], twice, lambda: one.instance)
    await due(owner, scheduler)
    assert await scheduler.once(work.task)
    [(data, tenant, version)] = await one.ran()
    assert (data.task, data.result, data.error, data.instance) == ("chores", {"done": 1}, None, str(one.instance))
    assert (tenant, version) == (SYSTEM_TENANT, None)
    await owner.execute(DUE)
    assert await scheduler.once(work.task)
    assert [d.result for d, _, _ in await one.ran()] == [{"done": 1}, {"done": 2}]


async def test_a_run_whose_event_the_log_did_not_take_is_not_over_and_is_run_again(
    one: Gatewayish, owner: Connection
) -> None:
    work = Counted()

    async def away(event: NewEvent) -> Appended:
        raise ConnectionError("away")

    await due(owner, one.scheduler(work.task))
    with pytest.raises(ConnectionError):
        await Scheduler(one.log.pool, [work.task], away, lambda: one.instance, lease_seconds=0.2).once(work.task)
    again = one.scheduler(work.task)

    async def run_again() -> bool:
        return await again.once(work.task)

    await until(run_again, what="the lease has run out")
    assert [d.result for d, _, _ in await one.ran()] == [{"done": 2}]


async def test_a_process_whose_clock_jumps_runs_nothing_early_or_late(
    one: Gatewayish, owner: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    work = Counted()
    scheduler = one.scheduler(work.task)
    await due(owner, scheduler)
    now, monotonic = time.time, time.monotonic
    for jump in (10 * 365 * 86400.0, -10 * 365 * 86400.0):
        monkeypatch.setattr(time, "time", lambda jump=jump: now() + jump)
        monkeypatch.setattr(time, "time_ns", lambda jump=jump: int((now() + jump) * 1e9))
        monkeypatch.setattr(time, "monotonic", lambda jump=jump: monotonic() + jump)
        assert await scheduler.once(work.task), "it is due by the database's clock"
        assert not await scheduler.once(work.task), "and now it is not"
        left = await owner.fetchval("SELECT next_run_at - clock_timestamp() FROM emberlog.maintenance")
        assert timedelta(minutes=59) < left <= HOUR
        await owner.execute(DUE)
    assert work.runs == 2


async def test_the_application_cannot_write_the_table_of_tasks(one: Gatewayish) -> None:
    await one.log.pool.fetch("SELECT * FROM emberlog.maintenance")
    with pytest.raises(Exception, match="permission denied"):
        await one.log.pool.execute("UPDATE emberlog.maintenance SET next_run_at = now()")


# -- the tasks of a gateway ---------------------------------------------------------------------------------------------


async def _run(
    name: str,
    one: Gatewayish,
    abandon: Callable[[], Awaitable[int]] | None = None,
    settings: Settings | None = None,
) -> dict[str, int]:
    async def nothing() -> int:
        return 0

    places = Places(one.dsn, one.dsn, None)
    tasks = gateway_tasks(one.log, settings or Settings(), places, abandon or nothing, nothing)
    [task] = [t for t in tasks if t.name == name]
    return await task.run()


async def test_the_sweep_forgets_instances_fenced_long_ago_but_those_that_an_open_attempt_names(
    one: Gatewayish, owner: Connection
) -> None:
    async def fenced(days: int) -> UUID:
        instance = await one.log.register_instance("gone", 60)
        await one.log.fence_instance(instance)
        await owner.execute(
            "UPDATE emberlog.instances SET fenced_at = clock_timestamp() - make_interval(days => $2) WHERE id = $1",
            instance,
            days,
        )
        return instance

    old, young, named, unread = await fenced(31), await fenced(29), await fenced(31), await fenced(31)
    known = "SELECT array_agg(id) FROM emberlog.instances"
    assert await _run("sweep", one) == {"instances": 0, "generations": 0, "quota_windows": 0}, (
        "no view says that nothing of theirs is open"
    )
    await owner.execute("INSERT INTO projections.cursors (name, position) VALUES ('requests', 5)")
    await owner.execute(
        "INSERT INTO projections.requests (tenant, request_id, attempt, state, agent, model, instance, requested_position) "
        "VALUES ('t', 'r', 1, 'open', 'a', 'm', $1, 1)",
        str(named),
    )
    await owner.execute("UPDATE emberlog.instances SET fenced_head = 6 WHERE id = $1", unread)
    await owner.execute(
        "INSERT INTO quota.instances SELECT i::text, 0, true FROM unnest($1::uuid[]) i", [old, young, named, unread]
    )
    assert await _run("sweep", one) == {"instances": 1, "generations": 0, "quota_windows": 0}
    left = await owner.fetchval(known)
    assert old not in left
    assert {young, named, unread, one.instance} <= set(left)


async def test_the_reconciliation_counts_what_dead_instances_left_open_and_ends_it(
    one: Gatewayish, owner: Connection
) -> None:
    assert await _run("reconciliation", one) == {"open": 0, "abandoned": 0}
    dead = await one.log.register_instance("dead", 60)
    await one.log.fence_instance(dead)
    at = (await owner.fetchval("SELECT clock_timestamp()")) - timedelta(minutes=1)
    await write_log(
        owner, [Recorded(at, "t", requested("left", instance=str(dead))), Recorded(at, "t", generated("done"))]
    )
    await owner.execute(
        "INSERT INTO projections.requests (tenant, request_id, attempt, state, agent, model, instance, requested_position, requested_at) "
        "VALUES ('t', 'left', 1, 'open', 'a', 'm', $1, 1, $2)",
        str(dead),
        at,
    )
    ended = []

    async def abandon() -> int:
        ended.append(True)
        return 1

    assert await _run("reconciliation", one, abandon) == {"open": 1, "abandoned": 1}
    assert ended == [True]


async def test_partitions_are_made_and_old_dedupe_keys_dropped_by_their_tasks(
    one: Gatewayish, owner: Connection
) -> None:
    assert await _run("partitions", one) == {"made": 0}
    await owner.execute("CREATE TABLE emberlog.dedupe_keys_1 PARTITION OF emberlog.dedupe_keys FOR VALUES IN (1)")
    assert await _run("dedupe_keys", one) == {"dropped": 1}


async def test_the_sweep_drops_generations_retired_more_than_a_week_ago(one: Gatewayish, owner: Connection) -> None:
    await owner.execute(
        "INSERT INTO projections.cursors (name, generation, state, state_since) VALUES "
        "('usage', 1, 'live', now() - interval '90 days'), ('usage', 7, 'retired', now() - interval '8 days'), "
        "('requests', 1, 'live', now()), ('requests', 7, 'retired', now() - interval '6 days')"
    )
    await owner.execute("CREATE TABLE projections.usage_7 (); ALTER TABLE projections.usage_7 OWNER TO emberlog_app")
    assert await _run("sweep", one) == {"instances": 0, "generations": 1, "quota_windows": 0}
    left = await owner.fetch("SELECT name, generation FROM projections.cursors ORDER BY name, generation")
    assert [tuple(row) for row in left] == [("requests", 1), ("requests", 7), ("usage", 1)]
    assert await owner.fetchval("SELECT to_regclass('projections.usage_7')") is None


async def test_the_archive_moves_what_is_older_than_its_setting(
    services: EmbeddedServices, postgres_dsn: str, tmp_path: Path
) -> None:
    await migrate(postgres_dsn, partition_width=10)
    await services.grant_app_role()
    settings = Settings(archive_dir=tmp_path, archive_after_days=30)
    async with gatewayish(postgres_dsn) as one:
        await fill(one.log, one.instance, 35)
        assert await _run("archive", one, settings=settings) == {"segments": 0, "events": 0}
        await age(postgres_dsn, 20)
        owner = await connect(postgres_dsn, "owner", role=False)
        await owner.execute("UPDATE emberlog.instances SET lease_until = clock_timestamp()")
        await owner.close()
        assert await _run("archive", one, settings=settings) == {"segments": 2, "events": 20}
        assert list(tmp_path.iterdir())


async def test_the_archive_is_no_task_without_its_setting(one: Gatewayish) -> None:
    async def nothing() -> int:
        return 0

    def names(settings: Settings) -> set[str]:
        return {
            task.name for task in gateway_tasks(one.log, settings, Places(one.dsn, one.dsn, None), nothing, nothing)
        }

    assert names(Settings(archive_after_days=3)) - names(Settings()) == {"archive"}


async def test_an_idle_installation_logs_fewer_than_a_hundred_runs_a_day(one: Gatewayish) -> None:
    async def nothing() -> int:
        return 0

    tasks = gateway_tasks(one.log, Settings(archive_after_days=3), Places(one.dsn, one.dsn, None), nothing, nothing)
    assert sum(timedelta(days=1) / task.period for task in tasks) < 100
