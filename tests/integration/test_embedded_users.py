from __future__ import annotations

import contextlib
import json
import os
import signal
import sys
import sysconfig
from pathlib import Path

import pytest

from adapters.embedded import EmbeddedServices
from adapters.embedded.account import Account
from tests.support.databases import execute
from tests.support.folders import servers_of
from tests.support.runner import ROOT, Child, running_python

USER = GROUP = 65_534


def reachable_interpreter() -> str | None:
    """A Python of this version that an ordinary user can run with our packages; ours may lie below root's home."""
    account = Account(USER, GROUP, switch=True)
    name = f"python{sys.version_info.major}.{sys.version_info.minor}"
    if not account.can_pass(ROOT) or not account.can_pass(Path(sysconfig.get_path("purelib"))):
        return None
    for candidate in (Path(sys.executable).resolve(), Path("/usr/local/bin") / name, Path("/usr/bin") / name):
        if candidate.exists() and account.can_pass(candidate.resolve().parent):
            return str(candidate)
    return None


INTERPRETER = reachable_interpreter()
needs_interpreter = pytest.mark.skipif(
    INTERPRETER is None, reason="no Python of this version, or not the project's folder, is open to other users"
)
pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="only root can run a process as another user")


def supervisor_of(data_dir: Path, user: int | None = USER) -> contextlib.AbstractAsyncContextManager[Child]:
    assert INTERPRETER is not None
    return running_python(
        ["-m", "tests.support.supervise", str(data_dir)],
        user=user,
        group=GROUP if user else None,
        interpreter=INTERPRETER,
    )


@pytest.fixture
def own_folder(open_folder: Path) -> Path:
    """A folder that belongs to the ordinary user; the data folder below it is named `data`."""
    os.chown(open_folder, USER, GROUP)
    return open_folder


def owners(data_dir: Path) -> set[int]:
    return {Path(f"/proc/{pid}").stat().st_uid for pid in servers_of(data_dir)}


async def test_root_runs_no_server_as_root(used_data_dir: Path) -> None:
    async with await EmbeddedServices.start(used_data_dir):
        assert owners(used_data_dir)
        assert 0 not in owners(used_data_dir)


async def test_the_servers_of_root_hold_no_group_of_root(used_data_dir: Path) -> None:
    async with await EmbeddedServices.start(used_data_dir):
        for pid in servers_of(used_data_dir):
            status = dict(line.split(":", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines())
            assert "0" not in status["Groups"].split()
            assert "0" not in status["Gid"].split()


@needs_interpreter
async def test_an_ordinary_user_starts_stops_and_finds_the_data_again(own_folder: Path, data_dir: Path) -> None:
    for life in range(2):
        async with supervisor_of(data_dir) as child:
            said = json.loads(await child.line())
            if life == 0:
                await execute(said["owner_dsn"], "CREATE TABLE kept (a int)")
            else:
                await execute(said["owner_dsn"], "INSERT INTO kept VALUES (1)")
            assert owners(data_dir) == {USER}
            child.send(signal.SIGTERM)
            assert await child.wait() == 0
            assert servers_of(data_dir) == []


@needs_interpreter
async def test_an_ordinary_users_services_recover_from_kill_9_of_the_supervisor(
    own_folder: Path, data_dir: Path
) -> None:
    async with supervisor_of(data_dir) as child:
        said = json.loads(await child.line())
        await execute(said["owner_dsn"], "CREATE TABLE kept (a int)")
        await child.kill()
    async with supervisor_of(data_dir) as child:
        said = json.loads(await child.line())
        while "owner_dsn" not in said:
            said = json.loads(await child.line())
        await execute(said["owner_dsn"], "INSERT INTO kept VALUES (1)")


@needs_interpreter
async def test_a_folder_of_an_ordinary_user_serves_root_and_then_that_user_again(
    own_folder: Path, data_dir: Path
) -> None:
    for user in (USER, None, USER):
        async with supervisor_of(data_dir, user) as child:
            said = json.loads(await child.line())
            await execute(said["owner_dsn"], "SELECT 1")
            assert owners(data_dir) == {USER}
            child.send(signal.SIGTERM)
            assert await child.wait() == 0


@needs_interpreter
async def test_a_folder_of_root_is_refused_to_an_ordinary_user_with_what_to_do(
    open_folder: Path, data_dir: Path
) -> None:
    async with await EmbeddedServices.start(data_dir):
        pass
    async with supervisor_of(data_dir) as child:
        assert await child.wait() == 1
        refusal = "".join(child.errors)
    assert "run as the user that owns the data folder" in refusal
    assert "EMBERLOG_DATA_DIR" in refusal
