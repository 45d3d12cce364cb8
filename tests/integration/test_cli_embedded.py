"""The commands on an embedded data folder: with a gateway running, without one, and one after another."""

from __future__ import annotations

import asyncio
import json
import signal
from pathlib import Path
from typing import Any

import asyncpg

from adapters.embedded import EmbeddedServices, running
from adapters.postgres.migrator import load_migrations, migrate
from projections.runner import Runner
from tests.support.cli import Cli
from tests.support.folders import servers_of
from tests.support.projecting import plain_usage, some_history, write_log
from tests.support.waiting import until


async def test_with_a_gateway_running_its_database_is_used_and_nothing_is_started(data_dir: Path) -> None:
    """What holds the folder here is the services alone, with the runner of a gateway."""
    cli = Cli({"EMBERLOG_DATA_DIR": str(data_dir)})
    async with await EmbeddedServices.start(data_dir, valkey=False) as services:
        await migrate(services.owner_dsn)
        await services.grant_app_role()
        server = services.postgres_pid
        runner = Runner(services.app_dsn)
        await runner.start()
        try:
            assert await cli.json("tenants", "create", "acme") == {"id": "acme"}
            owner = await asyncpg.connect(services.owner_dsn)
            history = some_history(300)
            head = await write_log(owner, history)
            await owner.close()
            usage = await cli.json("usage", "--grain", "hour")
            assert usage["complete_to"]["position"] == head
            assert len(usage["usage"]) == len([row for row in plain_usage(history) if row[0] == 3600])
            assert await cli.json("migrate") == {"applied": [], "after_deploy_pending": []}
            assert services.postgres_pid == server
        finally:
            await runner.stop()


async def test_usage_is_folded_by_the_command_when_no_gateway_runs_even_after_one_was_killed(data_dir: Path) -> None:
    cli = Cli({"EMBERLOG_DATA_DIR": str(data_dir)})
    history = some_history(300)
    async with await EmbeddedServices.start(data_dir, valkey=False) as services:
        await migrate(services.owner_dsn)
        owner = await asyncpg.connect(services.owner_dsn)
        await owner.execute(
            "INSERT INTO projections.cursors (name, owner, fence, lease_until) VALUES ('usage', gen_random_uuid(), 3, 'infinity')"
        )
        await write_log(owner, history)
        await owner.close()
    rows = (await cli.json("usage"))["usage"]
    expected = [row for row in plain_usage(history) if row[0] == 86400]
    assert [r["requests"] for r in rows] == [row[6] for row in expected]
    assert sum(r["nano_usd"] for r in rows) == sum(row[16] for row in expected)
    first = rows[0]
    assert set(first) >= {"bucket", "tenant", "agent", "model", "provider", "requests", "tokens", "billed_tokens"}
    assert set(first["latency_ms"] or {}) <= {"mean", "p50", "p95", "p99", "max"}

    one = await cli.json("usage", "--grain", "minute", "--from", rows[0]["bucket"], "--to", "2026-03-02")
    assert {r["bucket"][:10] for r in one["usage"]} == {"2026-03-01"}
    table = await cli.run("usage")
    assert table.code == 0
    assert "billed_tokens" in table.out.splitlines()[0]


async def test_following_goes_on_with_what_a_gateway_appends_and_ends_with_ctrl_c(data_dir: Path) -> None:
    cli = Cli({"EMBERLOG_DATA_DIR": str(data_dir)})
    await cli.run("tenants", "create", "first")
    follower = await cli.start("events", "tail", "--follow", "--json")
    try:
        first = await read_event(follower)
        assert first["data"]["tenant"] == "first"
        await until(lambda: running_or_held(data_dir) is False, what="the follower leaves the folder to a gateway")
        async with await EmbeddedServices.start(data_dir, valkey=False):
            await cli.run("tenants", "create", "second")
            second = await read_event(follower)
            assert second["data"]["tenant"] == "second"
            follower.send_signal(signal.SIGINT)
            assert await follower.wait() == 0
        [again] = (await cli.json("events", "tail", "--from", first["cursor"]))["events"]
        assert again["id"] == second["id"]
    finally:
        if follower.returncode is None:
            follower.kill()
            await follower.wait()


def running_or_held(data_dir: Path) -> bool:
    from adapters.embedded import DataFolderInUse

    try:
        return running(data_dir) is not None
    except DataFolderInUse:
        return True


async def read_event(process: asyncio.subprocess.Process) -> dict[str, Any]:
    assert process.stdout is not None
    async with asyncio.timeout(20):
        event: dict[str, Any] = json.loads(await process.stdout.readline())
    return event


async def test_migrate_makes_the_schema_of_a_fresh_folder(data_dir: Path) -> None:
    cli = Cli({"EMBERLOG_DATA_DIR": str(data_dir)})
    every = [m.name for m in load_migrations()]
    assert await cli.json("migrate") == {"applied": every, "after_deploy_pending": []}
    assert await cli.json("migrate") == {"applied": [], "after_deploy_pending": []}


async def test_a_command_that_is_ended_takes_its_servers_with_it(data_dir: Path) -> None:
    cli = Cli({"EMBERLOG_DATA_DIR": str(data_dir)})
    await cli.run("tenants", "list")
    process = await cli.start("usage", "--json")
    await until(lambda: servers_of(data_dir), what="the command's Postgres runs", timeout=20)
    process.send_signal(signal.SIGTERM)
    assert await process.wait() in (0, 130)
    assert servers_of(data_dir) == []


async def test_commands_at_the_same_time_on_a_fresh_folder_take_turns_and_leave_nothing_running(data_dir: Path) -> None:
    cli = Cli({"EMBERLOG_DATA_DIR": str(data_dir)})
    outcomes = await asyncio.gather(*(cli.run("tenants", "create", "race", "--json") for _ in range(3)))
    assert sorted(o.code for o in outcomes) == [0, 1, 1]
    assert {o.error for o in outcomes if o.code} <= {
        "emberlog: tenant race already exists\n",
        f"emberlog: there is no data folder yet: making {data_dir}\nemberlog: tenant race already exists\n",
    }
    assert servers_of(data_dir) == []
    assert running(data_dir) is None
