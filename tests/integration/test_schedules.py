"""Scheduled work as people see it: each task as it stands, and a run now by whichever process looks first."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest

from adapters.postgres import maintenance
from adapters.postgres.pool import Connection
from domain.errors import GatewayError
from gateway.maintenance.schedules import Schedules
from gateway.maintenance.task import Task
from tests.support.api import api_site
from tests.support.cli import Cli
from tests.support.databases import with_user
from tests.support.maintaining import HOUR, Counted, Gatewayish, due, gatewayish, row, running
from tests.support.waiting import until
from tests.unit.wire.fake_service import ADMIN_KEY, OPERATOR_KEY


@pytest.fixture
async def one(migrated_dsn: str) -> AsyncIterator[Gatewayish]:
    async with gatewayish(migrated_dsn) as made:
        yield made


@pytest.fixture
async def other(migrated_dsn: str) -> AsyncIterator[Gatewayish]:
    async with gatewayish(migrated_dsn) as made:
        yield made


async def known(one: Gatewayish, *works: Counted) -> None:
    """Let the database know of tasks, none of which is due."""
    for work in works:
        assert not await one.scheduler(work.task).once(work.task)


async def test_a_task_is_shown_with_its_period_its_next_run_and_what_the_last_one_did(
    one: Gatewayish, owner: Connection
) -> None:
    good, bad = Counted("good"), Counted("bad")
    bad.error = RuntimeError("no luck")
    await due(owner, one.scheduler(good.task, bad.task))
    schedules = Schedules(one.log.pool)
    assert [(s.name, s.state, s.last_run) for s in await schedules.all()] == [
        ("bad", "due", None),
        ("good", "due", None),
    ]
    for work in (good, bad):
        assert await one.scheduler(work.task).once(work.task)
    broken, fine = await schedules.all()
    assert (fine.state, fine.period_seconds, fine.failures, fine.holder) == ("waiting", 3600, 0, None)
    assert fine.last_run is not None
    assert (fine.last_run.result, fine.last_run.error) == ({"done": 1}, None)
    assert fine.last_run.ms is not None
    assert (fine.last_run.ended_at, fine.next_run_at is not None) == (fine.last_succeeded_at, True)
    assert broken.last_run is not None
    assert (broken.state, broken.failures, broken.last_succeeded_at) == ("waiting", 1, None)
    assert (broken.last_run.result, broken.last_run.error) == (None, "RuntimeError: no luck")


async def test_a_run_asked_for_in_one_process_is_done_once_by_another(
    one: Gatewayish, other: Gatewayish, owner: Connection
) -> None:
    work = Counted()
    await known(one, work)
    asked = await Schedules(one.log.pool).run("chores")
    assert asked.state == "due"
    at = (await row(owner))["next_run_at"]
    assert (await Schedules(one.log.pool).run("chores")).state == "due"
    assert (await row(owner))["next_run_at"] == at, "it is due already"
    scheduler = other.scheduler(work.task)
    assert await scheduler.once(work.task)
    assert not await scheduler.once(work.task)
    assert [data.result for data, _, _ in await one.ran()] == [{"done": 1}]


async def test_what_is_being_run_shows_its_holder_and_is_not_run_again(one: Gatewayish, owner: Connection) -> None:
    work = Counted()
    await due(owner, one.scheduler(work.task))
    work.go.clear()
    run = asyncio.create_task(one.scheduler(work.task).once(work.task))
    await work.begun.wait()
    shown = await Schedules(one.log.pool).run("chores")
    assert (shown.state, shown.holder) == ("running", str(one.instance))
    assert shown.lease_until is not None
    work.go.set()
    assert await run
    assert not await one.scheduler(work.task).once(work.task)
    assert (await Schedules(one.log.pool).one("chores")).state == "waiting"
    assert work.runs == 1


async def test_what_a_dead_process_left_is_due_when_its_lease_has_run_out(one: Gatewayish, owner: Connection) -> None:
    work = Counted()
    await due(owner, one.scheduler(work.task))
    pool = one.log.pool
    assert await maintenance.claim(pool, "chores", UUID(int=7), period=HOUR, lease=timedelta(seconds=60)) == 1
    await owner.execute("UPDATE emberlog.maintenance SET lease_until = clock_timestamp() - interval '1 s'")
    shown = await Schedules(pool).one("chores")
    assert (shown.state, shown.holder) == ("due", None)
    assert await one.scheduler(work.task).once(work.task)


async def test_a_failed_run_in_its_pause_is_run_when_asked_for(one: Gatewayish, owner: Connection) -> None:
    work = Counted()
    work.error = RuntimeError("no luck")
    scheduler = one.scheduler(work.task)
    await due(owner, scheduler)
    assert await scheduler.once(work.task)
    assert not await scheduler.once(work.task)
    work.error = None
    await Schedules(one.log.pool).run("chores")
    assert await scheduler.once(work.task)
    assert (await Schedules(one.log.pool).one("chores")).failures == 0


async def test_without_a_period_a_task_is_run_when_it_is_asked_for_and_never_else(
    one: Gatewayish, owner: Connection
) -> None:
    every: timedelta | None = None
    work = Counted()
    task = Task("chores", lambda: every, work.run)
    scheduler, schedules = one.scheduler(task), Schedules(one.log.pool)
    for failing in (False, True):
        work.error = RuntimeError("no luck") if failing else None
        assert not await scheduler.once(task)
        shown = await schedules.one("chores")
        assert (shown.state, shown.period_seconds, shown.next_run_at) == ("off", None, None)
        await schedules.run("chores")
        assert await scheduler.once(task)
    assert work.runs == 2
    every = timedelta(hours=2)
    assert not await scheduler.once(task)
    assert timedelta(hours=1) < await _left(owner) <= timedelta(hours=2), "a period again: due one from now"
    every = timedelta(minutes=10)
    assert not await scheduler.once(task)
    assert await _left(owner) <= timedelta(minutes=10), "a shorter one counts at once"
    await schedules.run("chores")
    every = None
    assert await scheduler.once(task), "what was asked for is run, though the period went meanwhile"
    assert not await scheduler.once(task)
    assert (await schedules.one("chores")).state == "off"


async def _left(owner: Connection) -> Any:
    return await owner.fetchval("SELECT next_run_at - clock_timestamp() FROM emberlog.maintenance")


async def test_running_schedulers_take_what_is_asked_for(one: Gatewayish, other: Gatewayish) -> None:
    works = [Counted(f"task_{n}") for n in range(3)]
    await known(one, *works)
    async with running(*(g.scheduler(*(w.task for w in works)) for g in (one, other))):
        for work in works:
            await Schedules(one.log.pool).run(work.task.name)
        await until(lambda: all(w.runs for w in works), what="each has run")

        async def told() -> bool:
            return len(await one.ran()) == 3

        await until(told, what="the log tells of each")
    assert [w.runs for w in works] == [1, 1, 1]


async def test_a_schedule_that_there_is_not_is_told_with_those_that_there_are(one: Gatewayish) -> None:
    schedules = Schedules(one.log.pool)
    with pytest.raises(GatewayError, match="no gateway of this installation has run yet"):
        await schedules.one("chores")
    await known(one, Counted("sweep"))
    with pytest.raises(GatewayError, match="there is no schedule 'chores': there are sweep") as refused:
        await schedules.run("chores")
    assert refused.value.code == "not_found"
    for name in ("a\x00b", "\ud800", "A" * 100_000, ""):
        with pytest.raises(GatewayError) as caught:
            await schedules.run(name)
        assert caught.value.code == "not_found"
        assert len(caught.value.message) < 400


async def test_operators_list_show_and_run_schedules_over_http_and_others_may_not(one: Gatewayish) -> None:
    await known(one, Counted("sweep"))
    async with api_site() as site:
        site.service.schedules = Schedules(one.log.pool)
        for method, path in (("GET", ""), ("GET", "/sweep"), ("POST", "/sweep/run")):
            refused = await site.ask(method, f"/api/v1/schedules{path}", ADMIN_KEY)
            assert (refused.status_code, refused.json()["error"]["code"]) == (403, "forbidden")
        [listed] = (await site.ask("GET", "/api/v1/schedules", OPERATOR_KEY)).json()["schedules"]
        assert (listed["name"], listed["state"], listed["period_seconds"]) == ("sweep", "waiting", 3600)
        asked = await site.ask("POST", "/api/v1/schedules/sweep/run", OPERATOR_KEY)
        assert (asked.status_code, asked.json()["state"]) == (202, "due")
        shown = await site.ask("GET", asked.headers["location"], OPERATOR_KEY)
        assert shown.json() == asked.json()
        missing = await site.ask("POST", "/api/v1/schedules/nothing/run", OPERATOR_KEY)
        assert (missing.status_code, missing.json()["error"]["code"]) == (404, "not_found")


async def test_commands_list_show_and_run_schedules(migrated_dsn: str, one: Gatewayish, tmp_path: Path) -> None:
    key = tmp_path / "secret.key"
    key.write_bytes(base64.b64encode(bytes(32)))
    cli = Cli({
        "EMBERLOG_DATABASE_URL": with_user(migrated_dsn, "emberlog_gateway"),
        "EMBERLOG_SECRET_KEY_FILE": str(key),
    })  # fmt: skip
    work = Counted("sweep")
    await known(one, work)
    assert [s["name"] for s in await cli.json("schedules", "list")] == ["sweep"]
    assert (await cli.json("schedules", "run", "sweep"))["state"] == "due"
    assert await one.scheduler(work.task).once(work.task)
    shown = await cli.json("schedules", "show", "sweep")
    assert (shown["state"], shown["last_run"]["result"]) == ("waiting", {"done": 1})
    assert '{"done":1}' in (await cli.run("schedules", "list")).out
    missing = await cli.run("schedules", "run", "nothing")
    assert (missing.code, "there are sweep" in missing.error) == (1, True)
