"""`emberlog log archive` as a user runs it, and what reads the log afterwards."""

from __future__ import annotations

import base64
from pathlib import Path

import pytest

from adapters.postgres.event_log import PostgresEventLog
from domain.events import EventData
from domain.plane import ControlPlane
from domain.ports.event_log import StoredEvent
from gateway.tail import PlaneTail
from tests.support.archiving import WIDTH, age, fill
from tests.support.cli import Cli
from tests.support.databases import with_user

OLD = 3 * WIDTH


@pytest.fixture
def owner_dsn(narrow_dsn: str) -> str:
    return narrow_dsn


@pytest.fixture
def cli(owner_dsn: str, tmp_path: Path) -> Cli:
    key = tmp_path / "secret.key"
    key.write_bytes(base64.b64encode(bytes(32)))
    return Cli(
        {
            "EMBERLOG_DATABASE_URL": with_user(owner_dsn, "emberlog_gateway"),
            "EMBERLOG_DATABASE_OWNER_URL": owner_dsn,
            "EMBERLOG_SECRET_KEY_FILE": str(key),
            "EMBERLOG_ARCHIVE_DIR": str(tmp_path / "archive"),
        }
    )


async def filled(owner_dsn: str) -> None:
    log = await PostgresEventLog.connect(with_user(owner_dsn, "emberlog_gateway"))
    instance = await log.register_instance("integration tests", 600)
    await fill(log, instance, OLD + 5 - await log.head())
    await log.fence_instance(instance)
    await log.close()
    await age(owner_dsn, OLD)


async def test_what_would_be_moved_is_told_before_and_moved_then(cli: Cli, owner_dsn: str, tmp_path: Path) -> None:
    await filled(owner_dsn)
    before = await cli.json("events", "tail")
    planned = await cli.json("log", "archive", "--older-than", "90d", "--dry-run")
    assert [(s["first_position"], s["last_position"]) for s in planned["segments"]] == [(1, 10), (11, 20), (21, 30)]
    assert not (tmp_path / "archive").exists()
    moved = await cli.json("log", "archive", "--older-than", "90d")
    assert [s["file"] for s in moved["segments"]] == sorted(path.name for path in (tmp_path / "archive").iterdir())
    after = await cli.json("events", "tail")
    assert after["events"][: OLD + 5] == before["events"]
    assert (await cli.json("log", "archive", "--older-than", "90d"))["segments"] == []
    assert "nothing to move: a partition moves once" in (await cli.run("log", "archive", "--older-than", "90d")).out


async def test_tenants_and_keys_are_known_after_their_events_were_archived(cli: Cli, owner_dsn: str) -> None:
    await cli.json("tenants", "create", "acme")
    key = await cli.json("keys", "create", "--tenant", "acme", "--scopes", "agent")
    await filled(owner_dsn)
    tenants, keys = await cli.json("tenants", "list"), await cli.json("keys", "list")
    assert len((await cli.json("log", "archive", "--older-than", "4d"))["segments"]) == 3
    assert await cli.json("tenants", "list") == tenants
    assert await cli.json("keys", "list") == keys
    log = await PostgresEventLog.connect(with_user(owner_dsn, "emberlog_gateway"))  # it needs no archive folder

    async def observe(event: StoredEvent, data: EventData) -> None:
        """Nothing to load."""

    plane = ControlPlane()
    await PlaneTail(log, plane, observe).catch_up()
    assert plane.directory.authenticate(key["key"], 0).tenant == "acme"
    await log.close()


async def test_the_log_verifies_across_its_archive_and_a_damaged_file_is_reported(
    cli: Cli, owner_dsn: str, tmp_path: Path
) -> None:
    await filled(owner_dsn)
    moved = await cli.json("log", "archive", "--older-than", "90d")
    assert (await cli.json("log", "verify"))["intact"] is True
    path = tmp_path / "archive" / moved["segments"][1]["file"]
    path.write_bytes(path.read_bytes()[:-1])
    outcome = await cli.run("log", "verify")
    assert outcome.code == 1
    assert path.name in outcome.out + outcome.error
    tailed = await cli.run("events", "tail")
    assert tailed.code == 1
    assert f"{path} is damaged" in tailed.error


@pytest.mark.parametrize(
    ("words", "changed", "code", "message"),
    [
        (["--older-than", "90d"], {"EMBERLOG_ARCHIVE_DIR": ""}, 1, "archive_dir: "),
        ([], {}, 2, "give one of --before TIME and --older-than DURATION"),
        (["--older-than", "90d", "--before", "2026-01-01"], {}, 2, "give one of --before TIME"),
        (["--older-than", "never"], {}, 2, "is no duration"),
        (["--older-than", "90d"], {"EMBERLOG_DATABASE_OWNER_URL": ""}, 1, "only the owner of the schema may archive"),
        (
            ["--older-than", "90d"],
            {"EMBERLOG_ARCHIVE_DIR": "/dev/null/x"},
            1,
            "writing to /dev/null/x failed: Not a directory",
        ),
    ],
    ids=["no folder", "no age", "two ages", "no duration", "no owner", "no place"],
)
async def test_what_cannot_be_done_is_said_and_nothing_is_changed(
    cli: Cli, owner_dsn: str, words: list[str], changed: dict[str, str], code: int, message: str
) -> None:
    await filled(owner_dsn)
    before = await cli.json("log", "head")
    environment = {k: v for k, v in (cli.environment | changed).items() if k.startswith("EMBERLOG_") and v}
    outcome = await Cli(environment).run("log", "archive", *words)
    assert outcome.code == code
    assert message in " ".join(outcome.error.replace("│", " ").split())
    assert (await cli.json("log", "head"))["position"] == before["position"]
