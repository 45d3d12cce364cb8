"""The runbook of `docs/backup.md`, run as it stands there."""

from __future__ import annotations

import asyncio
import os
import re
import sys
from collections.abc import AsyncIterator, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from adapters.embedded import EmbeddedServices
from adapters.embedded.binaries import postgres_bin
from adapters.postgres.migrator import migrate
from adapters.postgres.tenant_keys import all_wrapped
from domain.events import AgentRegistered, EventData, Preferences, encode_data
from domain.ports.event_log import NewEvent
from gateway.decisions import append_decision
from gateway.manage import Installation, open_installation
from gateway.secrets import seal_metadata
from gateway.settings import Settings
from tests.support.cli import Cli
from tests.support.databases import create_database, drop_database, with_database, with_user
from tests.support.folders import temporary_data_dir, temporary_folder
from tests.support.installing import settings_of
from tests.support.projecting import generated, requested

PAGE = Path(__file__).parents[2] / "docs" / "backup.md"
BLOCKS = {
    block.partition("\n")[0].removeprefix("# "): block
    for block in re.findall(r"```sh\n(.*?)```", PAGE.read_text(), re.DOTALL)
}


async def run_block(script: str, settings: Mapping[str, str], backup: Path) -> str:
    """Run a block of the page, or a part of it, as an operator would; it must end well. Returns what it printed."""
    server = int(os.environ.get("EMBERLOG_TEST_POSTGRES", "18"))
    programs = [str(Path(sys.executable).parent), str(postgres_bin(server))]
    process = await asyncio.create_subprocess_exec(
        "bash", "-euo", "pipefail", "-c", BLOCKS.get(script, script),
        env={
            **Cli(settings).environment,
            "BACKUP": str(backup),
            "PATH": ":".join([*programs, os.environ["PATH"]]),
        },
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT,
    )  # fmt: skip
    async with asyncio.timeout(120):
        said, _ = await process.communicate()
    assert process.returncode == 0, f"{script}: {said.decode()}"
    return said.decode()


async def fill(installation: Installation, prefix: str) -> None:
    """Two requests of each tenant with their outcomes."""
    async with installation.writer() as instance:
        for tenant in ("acme", "globex"):
            events: list[EventData] = []
            for number in range(2):
                events += [requested(f"{prefix}{number}"), generated(f"{prefix}{number}")]
            await installation.log.append(
                instance,
                [
                    NewEvent(
                        os.urandom(16), os.urandom(16), tenant, f"request/{tenant}/{prefix}", e.TYPE, encode_data(e), 1
                    )
                    for e in events
                ],
            )


async def seal_something(installation: Installation) -> dict[str, int]:
    """An event with sealed metadata of each tenant; its position by tenant."""
    positions = {}
    async with installation.writer() as instance:
        for tenant, wrapped in (await all_wrapped(installation.log.pool)).items():
            sealed = seal_metadata(installation.master().unwrap(tenant, wrapped), b'{"project":"apollo"}')
            data = AgentRegistered("a", Preferences(), metadata=sealed)
            appended = await append_decision(installation.log, instance, tenant, f"agent/{tenant}/a", data)
            assert appended.position is not None
            positions[tenant] = appended.position
    return positions


async def billed(cli: Cli) -> dict[str, int]:
    """Requests by tenant, of the usage view."""
    found: dict[str, int] = {}
    for row in (await cli.json("usage", "--grain", "day"))["usage"]:
        found[row["tenant"]] = found.get(row["tenant"], 0) + row["requests"]
    return found


class Before:
    """What is known from before the crash."""

    cursors: list[str]
    head: int
    identity: dict[str, Any]
    sealed: dict[str, int]


async def live(settings: Settings, cli: Cli, backup_block: str, after_shred: str | None, backup: Path) -> Before:
    """A life with a backup in its middle, then a shred and more events that the backup does not have."""
    before = Before()
    for tenant in ("acme", "globex"):
        await cli.json("tenants", "create", tenant)
    async with open_installation(settings) as installation:
        await fill(installation, "early")
        before.sealed = await seal_something(installation)
    assert await billed(cli) == {"acme": 2, "globex": 2}
    before.identity = await cli.json("log", "head")
    before.head = before.identity["position"]
    await run_block(backup_block, cli.environment, backup)

    before.cursors = [before.identity["cursor"]]
    async with open_installation(settings) as installation:
        await fill(installation, "late")
    await cli.json("tenants", "shred", "acme", "--yes")
    before.cursors.append((await cli.json("log", "head"))["cursor"])
    assert await billed(cli) == {"acme": 4, "globex": 4}
    if after_shred is not None:
        await run_block(after_shred, cli.environment, backup)
    return before


async def check_restored(settings: Settings, cli: Cli, before: Before) -> None:
    for cursor in before.cursors:
        refused = await cli.run("events", "tail", "--from", cursor)
        assert refused.code == 1
        assert (
            "invalid_cursor: this cursor belongs to another log, or to this one before it was restored" in refused.error
        )
    head = await cli.json("log", "head")
    assert head["installation"] == before.identity["installation"]
    assert head["incarnation"] != before.identity["incarnation"]
    events = (await cli.json("events", "tail"))["events"]
    assert [e["position"] for e in events] == list(range(1, before.head + 3))
    assert [e["type"] for e in events[before.head :]] == ["tenant.shredded", "log.restored"]
    assert events[-1]["data"]["shredded"] == 1
    assert {t["id"]: t["shredded_at"] is not None for t in await cli.json("tenants", "list")} == {
        "acme": True,
        "globex": False,
    }
    opened = {t: (await cli.json("log", "show", str(p)))["metadata"] for t, p in before.sealed.items()}
    assert opened == {"acme": {"shredded": True}, "globex": {"project": "apollo"}}
    assert await billed(cli) == {"acme": 2, "globex": 2}, "what came after the backup is lost"

    async with open_installation(settings) as installation:
        assert set(await all_wrapped(installation.log.pool)) == {"globex"}
        await fill(installation, "again")
    assert await billed(cli) == {"acme": 4, "globex": 4}
    assert (await cli.run("projections", "verify", "--all")).code == 0
    assert (await cli.run("log", "verify")).code == 0


@pytest.fixture
def backup() -> Iterator[Path]:
    with temporary_folder() as folder:
        yield folder / "backup"


async def test_a_data_folder_is_backed_up_while_it_is_used_and_restored_into_a_new_one(
    data_dir: Path, backup: Path
) -> None:
    cli, settings = Cli({"EMBERLOG_DATA_DIR": str(data_dir)}), Settings(data_dir=data_dir)
    async with await EmbeddedServices.start(data_dir, valkey=False) as services:
        await migrate(services.owner_dsn)
        await services.grant_app_role()
        before = await live(settings, cli, "backup", "after a shred", backup)

    with temporary_folder() as parent, temporary_data_dir(parent) as fresh:
        cli, settings = Cli({"EMBERLOG_DATA_DIR": str(fresh)}), Settings(data_dir=fresh)
        said = await run_block("restore", cli.environment, backup)
        assert "shredded again: acme" in said
        await check_restored(settings, cli, before)
        again = await cli.run("log", "restored", "--dump", str(backup / "emberlog.dump"))
        assert (again.code, "has a log already" in again.error) == (1, True)


@pytest.fixture
async def second_dsn(services: EmbeddedServices) -> AsyncIterator[str]:
    name = await create_database(services.owner_dsn)
    yield with_database(services.owner_dsn, name)
    await drop_database(services.owner_dsn, name)


async def test_a_database_is_backed_up_and_restored_into_an_empty_one(
    migrated_dsn: str, second_dsn: str, tmp_path: Path, backup: Path
) -> None:
    settings = settings_of(migrated_dsn, tmp_path)
    environment = {
        "EMBERLOG_DATABASE_URL": with_user(migrated_dsn, "emberlog_gateway"),
        "EMBERLOG_DATABASE_OWNER_URL": migrated_dsn,
        "EMBERLOG_REDIS_URL": "none",
        "EMBERLOG_SECRET_KEY_FILE": str(settings.secret_key_file),
        "EMBERLOG_ARCHIVE_DIR": str(settings.archive_dir),
    }
    before = await live(settings, Cli(environment), "backup of a database", None, backup)

    environment["EMBERLOG_DATABASE_URL"] = with_user(second_dsn, "emberlog_gateway")
    environment["EMBERLOG_DATABASE_OWNER_URL"] = second_dsn
    lines = BLOCKS["restore of a database"].splitlines()
    at = lines.index("emberlog log restored")
    await run_block("\n".join(lines[:at]), environment, backup)
    # The control: this is what the command is for.
    async with open_installation(settings_of(second_dsn, tmp_path)) as installation:
        assert set(await all_wrapped(installation.log.pool)) == {"acme", "globex"}, "the backup brings the key back"
    assert (await Cli(environment).run("events", "tail", "--from", before.cursors[0])).code == 0
    said = await run_block("\n".join(lines[at:]), environment, backup)
    assert "shredded again: acme" in said
    await check_restored(settings_of(second_dsn, tmp_path), Cli(environment), before)
