from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import subprocess
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import asyncpg
import pytest
from redis.asyncio import Redis

from adapters.embedded import EmbeddedServices, ServiceEvent
from adapters.embedded.binaries import reachable_postgres_bin, reachable_valkey_server
from adapters.embedded.layout import Layout, make_data_folder, prepare
from adapters.embedded.postgres import PostgresService
from adapters.embedded.processes import alive, send
from adapters.embedded.valkey import ValkeyService
from tests.support.databases import execute
from tests.support.folders import servers_of
from tests.support.runner import Child, running_python
from tests.support.waiting import until


@contextlib.asynccontextmanager
async def supervisor(data_dir: Path) -> AsyncIterator[tuple[Child, dict[str, Any]]]:
    """The services in a process of their own, and what it says when they answer."""
    async with running_python(["-m", "tests.support.supervise", str(data_dir)]) as child:
        said: dict[str, Any] = {}
        while "owner_dsn" not in said:  # an orphan may be reported first
            said = json.loads(await child.line())
        yield child, said


class Events:
    """Collects what the supervisor reports, and waits for a kind of it."""

    def __init__(self) -> None:
        self.seen: list[tuple[str, str]] = []
        self._changed = asyncio.Event()

    def __call__(self, event: ServiceEvent) -> None:
        self.seen.append((event.service, event.kind))
        self._changed.set()

    async def wait_for(self, service: str, kind: str, *, times: int = 1) -> None:
        async with asyncio.timeout(30):
            while self.seen.count((service, kind)) < times:
                self._changed.clear()
                await self._changed.wait()


async def rows(dsn: str) -> list[int]:
    connection = await asyncpg.connect(dsn)
    try:
        return [row["a"] for row in await connection.fetch("SELECT a FROM kept ORDER BY a")]
    finally:
        await connection.close()


async def test_kill_9_of_the_supervisor_again_and_again_loses_nothing_and_needs_no_manual_step(
    used_data_dir: Path,
) -> None:
    async with supervisor(used_data_dir) as (child, said):
        await execute(said["owner_dsn"], "CREATE TABLE kept (a int)")
        await child.kill()
    for life in range(3):
        async with supervisor(used_data_dir) as (child, said):
            await execute(said["owner_dsn"], f"INSERT INTO kept VALUES ({life})")
            assert await rows(said["owner_dsn"]) == list(range(life + 1))
            await child.kill()


async def test_servers_end_by_themselves_when_their_supervisor_is_killed(used_data_dir: Path) -> None:
    async with supervisor(used_data_dir) as (child, _):
        assert servers_of(used_data_dir)
        await child.kill()
        await until(lambda: not servers_of(used_data_dir), what="Postgres and Valkey end after their supervisor")


async def test_sigterm_to_the_supervisor_leaves_no_process_behind(used_data_dir: Path) -> None:
    async with supervisor(used_data_dir) as (child, _):
        child.send(signal.SIGTERM)
        assert await child.wait() == 0
        assert servers_of(used_data_dir) == []


async def test_a_gateway_killed_while_it_makes_the_cluster_leaves_nothing_that_blocks_the_next(data_dir: Path) -> None:
    async with running_python(["-m", "tests.support.supervise", str(data_dir)]) as child:
        await until(lambda: list(data_dir.glob("postgres.new-*/*")), what="initdb has begun")
        await child.kill()
    async with supervisor(data_dir) as (_, said):
        assert said["owner_dsn"]
        assert list(data_dir.glob("postgres.new-*")) == []


async def test_postgres_killed_comes_back_by_itself_with_what_was_committed(used_data_dir: Path) -> None:
    events = Events()
    async with await EmbeddedServices.start(used_data_dir, valkey=False, on_event=events) as services:
        await execute(services.owner_dsn, "CREATE TABLE kept (a int)")
        for life in range(2):
            await execute(services.owner_dsn, f"INSERT INTO kept VALUES ({life})")
            idle = await asyncpg.connect(services.owner_dsn)
            killed = services.postgres_pid
            assert killed is not None
            os.kill(killed, signal.SIGKILL)
            await events.wait_for("postgres", "restarted", times=life + 1)
            idle.terminate()
            assert services.postgres_pid not in (None, killed)
            assert await rows(services.owner_dsn) == list(range(life + 1))
    assert events.seen == [("postgres", "died"), ("postgres", "restarted")] * 2


async def test_postgres_killed_again_while_it_recovers_comes_back_all_the_same(used_data_dir: Path) -> None:
    events = Events()
    async with await EmbeddedServices.start(used_data_dir, valkey=False, on_event=events) as services:
        await execute(services.owner_dsn, "CREATE TABLE kept AS SELECT 7 AS a")
        killed: set[int | None] = {None}
        for _ in range(3):
            await until(lambda: services.postgres_pid not in killed, what="Postgres is started again")
            assert services.postgres_pid is not None
            killed.add(services.postgres_pid)
            os.kill(services.postgres_pid, signal.SIGKILL)
        await events.wait_for("postgres", "restarted")
        await until(lambda: services.postgres_pid not in killed, what="Postgres runs")
        assert await rows(services.owner_dsn) == [7]


async def test_of_many_that_start_at_once_on_an_empty_folder_one_serves_and_the_others_are_refused(
    data_dir: Path,
) -> None:
    async with contextlib.AsyncExitStack() as stack:
        arguments = ["-m", "tests.support.supervise", str(data_dir)]
        rivals = [await stack.enter_async_context(running_python(arguments)) for _ in range(3)]
        lines = await asyncio.gather(*(rival.line() for rival in rivals), return_exceptions=True)
        served = [line for line in lines if isinstance(line, str)]
        assert len(served) == 1
        await execute(json.loads(served[0])["owner_dsn"], "SELECT 1")
        for rival, line in zip(rivals, lines, strict=True):
            if not isinstance(line, str):
                assert "DataFolderInUse" in "".join(rival.errors)


async def test_the_wheels_own_python_is_never_run(used_data_dir: Path) -> None:
    async with supervisor(used_data_dir) as (_, said):
        assert said["imported"] == []


async def test_a_backend_that_does_not_notice_the_death_of_postgres_is_ended_before_the_restart(
    used_data_dir: Path,
) -> None:
    events = Events()
    async with await EmbeddedServices.start(used_data_dir, valkey=False, on_event=events) as services:
        busy = await asyncpg.connect(services.owner_dsn)
        backend = busy.get_server_pid()
        # A loop that never looks at its latch, in the middle of which the main process dies.
        spinning = asyncio.create_task(busy.execute("DO $$ BEGIN LOOP PERFORM 1; END LOOP; END $$"))
        await until(lambda: cpu_ticks(backend) > 5, what="the backend is busy")
        assert services.postgres_pid is not None
        os.kill(services.postgres_pid, signal.SIGKILL)
        await events.wait_for("postgres", "restarted")
        assert not alive(backend) or "postgres" not in Path(f"/proc/{backend}/cmdline").read_text()
        with pytest.raises((asyncpg.PostgresError, OSError)):
            await spinning
        busy.terminate()


async def test_valkey_killed_comes_back_by_itself(data_dir: Path) -> None:
    events = Events()
    async with await EmbeddedServices.start(data_dir, postgres=False, on_event=events) as services:
        assert services.redis_url is not None
        for life in range(2):
            killed = services.valkey_pid
            assert killed is not None
            os.kill(killed, signal.SIGKILL)
            await events.wait_for("valkey", "restarted", times=life + 1)
            async with Redis.from_url(services.redis_url) as redis:
                assert await redis.ping()
            assert services.valkey_pid not in (None, killed)


async def test_a_failing_listener_does_not_stop_the_supervision(data_dir: Path) -> None:
    def fail(event: ServiceEvent) -> None:
        raise RuntimeError(event.kind)

    async with await EmbeddedServices.start(data_dir, postgres=False, on_event=fail) as services:
        killed = services.valkey_pid
        assert killed is not None
        os.kill(killed, signal.SIGKILL)
        await until(lambda: services.valkey_pid not in (None, killed), what="Valkey runs again")


@contextlib.contextmanager
def orphans(layout: Layout) -> Any:
    """Both servers as a supervisor without the kernel's death signal would leave them: nobody's children."""
    postgres = PostgresService(layout, reachable_postgres_bin(layout.account), {}, None)
    valkey = ValkeyService(layout, reachable_valkey_server(layout.account), 16, None)
    account = layout.account
    switch: dict[str, Any] = {"user": account.uid, "group": account.gid, "extra_groups": []} if account.switch else {}
    started = [
        subprocess.Popen(service.command(), cwd="/", stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, **switch)
        for service in (postgres, valkey)
    ]
    try:
        yield started
    finally:
        for process in started:
            process.kill()
            process.wait()


async def test_orphans_that_still_run_are_ended_first_and_nothing_is_lost(used_data_dir: Path) -> None:
    events = Events()
    async with await EmbeddedServices.start(used_data_dir) as services:
        await execute(services.owner_dsn, "CREATE TABLE kept (a int)")
        dsn = services.owner_dsn
    with orphans(prepare(make_data_folder(used_data_dir))) as (postgres, valkey):

        async def insert() -> bool:
            try:
                await execute(dsn, "INSERT INTO kept VALUES (7)")
            except (OSError, asyncpg.PostgresError):
                return False
            return True

        await until(insert, what="the orphan answers")
        async with await EmbeddedServices.start(used_data_dir, on_event=events) as services:
            assert await rows(services.owner_dsn) == [7]
            assert postgres.wait(5) == 0
            assert valkey.wait(5) == 0
    assert sorted(events.seen) == [("postgres", "orphan_ended"), ("valkey", "orphan_ended")]


async def test_a_stale_pid_file_that_names_a_live_stranger_neither_kills_it_nor_blocks_the_start(
    used_data_dir: Path,
) -> None:
    async with await EmbeddedServices.start(used_data_dir) as services:
        account = prepare_account(used_data_dir)
    switch: dict[str, Any] = {"user": account, "extra_groups": []} if os.geteuid() == 0 else {}
    # The stranger runs as the servers' own user: only then would Postgres take it for a rival.
    stranger = subprocess.Popen(["/bin/sleep", "600"], cwd="/", **switch)
    try:
        stale = f"{stranger.pid}\n{used_data_dir / 'postgres'}\n1700000000\n5432\n{used_data_dir / 'run'}\n\n  1234 5678\nready\n"
        for path in (used_data_dir / "postgres" / "postmaster.pid", used_data_dir / "run" / ".s.PGSQL.5432.lock"):
            path.write_text(stale)
            os.chown(path, account, -1)
        with orphans(prepare(used_data_dir)) as (rival, _):
            assert rival.wait(10) != 0  # Postgres alone refuses to start
        async with await EmbeddedServices.start(used_data_dir) as services:
            await execute(services.owner_dsn, "SELECT 1")
        assert stranger.poll() is None
    finally:
        stranger.kill()
        stranger.wait()


async def test_lock_files_and_sockets_left_by_a_kill_of_everything_do_not_block_the_start(used_data_dir: Path) -> None:
    async with supervisor(used_data_dir) as (child, said):
        await execute(said["owner_dsn"], "CREATE TABLE kept (a int)")
        await execute(said["owner_dsn"], "INSERT INTO kept VALUES (1)")
        # The supervisor first, stopped so that it restarts nothing; then the servers without a chance to clean up.
        child.send(signal.SIGSTOP)
        send(servers_of(used_data_dir), signal.SIGKILL)
        await child.kill()
        await until(lambda: not servers_of(used_data_dir), what="all servers are dead")
    assert (used_data_dir / "postgres" / "postmaster.pid").exists()
    async with supervisor(used_data_dir) as (_, said):
        assert await rows(said["owner_dsn"]) == [1]


async def test_a_second_process_on_the_folder_is_refused_and_names_the_first(used_data_dir: Path) -> None:
    async with (
        supervisor(used_data_dir) as (first, said),
        running_python(["-m", "tests.support.supervise", str(used_data_dir)]) as second,
    ):
        assert await second.wait() == 1
        assert f"pid {first.pid}" in "".join(second.errors)
        assert "EMBERLOG_DATA_DIR" in "".join(second.errors)
        await execute(said["owner_dsn"], "SELECT 1")


def prepare_account(data_dir: Path) -> int:
    return (data_dir / "postgres").stat().st_uid


def cpu_ticks(pid: int) -> int:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return int(fields[11]) + int(fields[12])
