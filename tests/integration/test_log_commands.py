"""`emberlog log` as its user runs it: head, tail, show, verify."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from uuid import UUID

import pytest

from adapters.postgres.event_log import PostgresEventLog
from adapters.postgres.pool import Connection
from adapters.postgres.seals import newest_seal, seal
from adapters.postgres.tenant_keys import all_wrapped
from domain.events import AgentRegistered, Preferences
from gateway.decisions import append_decision
from gateway.secrets import MasterKey, seal_metadata
from tests.support.cli import Cli, Outcome
from tests.support.databases import with_user
from tests.support.sealing import PARTITION, append, rehash, unguard

MASTER = bytes(32)
SECRET = "zanzibar-quartz"


@pytest.fixture
def settings(migrated_dsn: str, tmp_path: Path) -> dict[str, str]:
    key = tmp_path / "secret.key"
    key.write_bytes(base64.b64encode(MASTER))
    return {
        "EMBERLOG_DATABASE_URL": with_user(migrated_dsn, "emberlog_gateway"),
        "EMBERLOG_DATABASE_OWNER_URL": migrated_dsn,
        "EMBERLOG_SECRET_KEY_FILE": str(key),
    }


@pytest.fixture
def cli(settings: dict[str, str]) -> Cli:
    return Cli(settings)


def failed(outcome: Outcome, code: int = 1) -> str:
    assert (outcome.code, outcome.out) == (code, "")
    return outcome.error


async def sealed_agent(cli: Cli, log: PostgresEventLog, instance: UUID) -> int:
    """The position of an event of tenant acme whose metadata is sealed."""
    await cli.run("tenants", "create", "acme")
    key = MasterKey(MASTER).unwrap("acme", (await all_wrapped(log.pool))["acme"])
    data = AgentRegistered("a1", Preferences(), metadata=seal_metadata(key, json.dumps({"note": SECRET}).encode()))
    appended = await append_decision(log, instance, "acme", "agent/acme/a1", data)
    assert appended.position is not None
    return appended.position


async def test_head_shows_the_newest_seal(cli: Cli, log: PostgresEventLog, instance: UUID) -> None:
    assert (await cli.json("log", "head"))["seal"] is None
    await append(log, instance, 3)
    await seal(log.pool, rest_seconds=0)
    await append(log, instance, 1)
    newest = await newest_seal(log.pool)
    assert newest is not None
    found = await cli.json("log", "head")
    assert found["position"] == 4
    assert found["seal"] == {"number": 1, "last_position": 3, "hash": newest.hash.hex()}
    assert newest.hash.hex() in (await cli.run("log", "head")).out


async def test_an_intact_log_is_said_to_be_intact(cli: Cli, log: PostgresEventLog, instance: UUID) -> None:
    assert (await cli.json("log", "verify"))["intact"]
    await append(log, instance, 3)
    await seal(log.pool, rest_seconds=0)
    await append(log, instance, 2)
    newest = await newest_seal(log.pool)
    assert newest is not None
    assert await cli.json("log", "verify", "--seal", newest.hash.hex()) == {
        "intact": True, "finding": None, "from": 1, "head": 5, "events": 5, "seals": 1, "unsealed": 2,
        "newest_seal": {"number": 1, "first_position": 1, "last_position": 3, "hash": newest.hash.hex()},
    }  # fmt: skip
    outcome = await cli.run("log", "verify", "--from", "4")
    assert outcome.code == 0
    assert outcome.out.startswith("intact: 2 events up to position 5, 1 seals, 2 events not sealed yet\n")


async def test_a_changed_event_is_named_with_exit_code_1(
    cli: Cli, log: PostgresEventLog, instance: UUID, owner: Connection
) -> None:
    await append(log, instance, 5)
    await seal(log.pool, rest_seconds=0)
    await unguard(owner)
    await owner.execute(f"""UPDATE {PARTITION} SET data = '{{"text": "{SECRET}"}}' WHERE position = 3""")
    for forged, damage in ((False, "event_changed"), (True, "event_replaced")):
        if forged:
            await rehash(owner, 3)
        outcome = await cli.run("log", "verify", "--json")
        assert (outcome.code, outcome.error) == (1, "")
        found = json.loads(outcome.out)
        assert (found["intact"], found["finding"]["damage"], found["finding"]["position"]) == (False, damage, 3)
        told = await cli.run("log", "verify")
        assert told.code == 1
        assert told.out.startswith("NOT INTACT: the event at position 3 ")
        assert SECRET not in outcome.out + told.out + told.error


async def test_a_chain_without_the_noted_seal_is_cut(cli: Cli, log: PostgresEventLog, instance: UUID) -> None:
    await append(log, instance, 5)
    await seal(log.pool, rest_seconds=0)
    outcome = await cli.run("log", "verify", "--seal", "ab" * 32, "--json")
    assert outcome.code == 1
    assert json.loads(outcome.out)["finding"]["damage"] == "chain_cut"


@pytest.mark.parametrize(
    ("words", "code", "says"),
    [
        (["verify", "--seal", "12"], 2, "64 hex digits"),
        (["verify", "--seal", "z" * 64], 2, "64 hex digits"),
        (["verify", "--from", "0"], 2, "--from"),
        (["verify", "--from", "9"], 1, "position 9 is past the log's newest event, at 2"),
        (["show", "3"], 1, "no event at position 3: its newest is at 2"),
        (["show", "0"], 1, "no event at position 0"),
        (["show", str(UUID(int=7))], 1, "no event with the id 00000000-0000-0000-0000-000000000007"),
        (["show", "first"], 2, "neither a position"),
        (["show", "9" * 30], 2, "neither a position"),
    ],
)
async def test_what_cannot_be_asked_for_is_refused_with_the_reason(
    cli: Cli, log: PostgresEventLog, instance: UUID, words: list[str], code: int, says: str
) -> None:
    await append(log, instance, 2)
    error = failed(await cli.run("log", *words, "--json"), code)
    assert says in " ".join(error.replace("│", " ").split())


async def test_an_event_is_shown_by_position_and_by_id_with_its_metadata_and_its_seal(
    cli: Cli, log: PostgresEventLog, instance: UUID
) -> None:
    position = await sealed_agent(cli, log, instance)
    await seal(log.pool, rest_seconds=0)
    await append(log, instance, 1)
    newest = await newest_seal(log.pool)
    assert newest is not None
    found = await cli.json("log", "show", str(position))
    assert (found["position"], found["type"], found["tenant"], found["version"]) == (
        position,
        "agent.registered",
        "acme",
        1,
    )
    assert found["metadata"] == {"note": SECRET}
    assert SECRET not in json.dumps(found["data"])
    [stored] = await log.read(position - 1, 1)
    assert (found["content_hash"], found["content_hash_valid"]) == (stored.content_hash.hex(), True)
    assert found["seal"] == newest.document()
    assert await cli.json("log", "show", found["id"]) == found

    later = await cli.json("log", "show", str(position + 1))
    assert (later["metadata"], later["seal"], later["content_hash_valid"]) == (None, None, True)
    assert SECRET in (await cli.run("log", "show", str(position))).out


async def test_metadata_whose_key_was_destroyed_is_shown_as_shredded(
    cli: Cli, log: PostgresEventLog, instance: UUID, owner: Connection
) -> None:
    position = await sealed_agent(cli, log, instance)
    await owner.execute("DELETE FROM emberlog.tenant_keys WHERE tenant = 'acme'")
    found = await cli.json("log", "show", str(position))
    assert found["metadata"] == {"shredded": True}
    assert found["content_hash_valid"] is True


async def test_without_the_right_secret_key_an_event_is_shown_with_its_metadata_closed(
    cli: Cli, settings: dict[str, str], log: PostgresEventLog, instance: UUID
) -> None:
    position = await sealed_agent(cli, log, instance)
    Path(settings["EMBERLOG_SECRET_KEY_FILE"]).write_bytes(base64.b64encode(b"x" * 32))
    found = await cli.json("log", "show", str(position))
    assert "wrapped with another secret key" in found["metadata"]["unopened"]
    del settings["EMBERLOG_SECRET_KEY_FILE"]
    found = await Cli(settings).json("log", "show", str(position))
    assert "EMBERLOG_SECRET_KEY_FILE" in found["metadata"]["unopened"]


async def test_a_changed_event_is_shown_as_changed(
    cli: Cli, log: PostgresEventLog, instance: UUID, owner: Connection
) -> None:
    await append(log, instance, 2)
    await unguard(owner)
    await owner.execute(f"UPDATE {PARTITION} SET tenant = 'evil' WHERE position = 2")
    outcome = await cli.run("log", "show", "2", "--json")
    assert outcome.code == 1
    assert json.loads(outcome.out)["content_hash_valid"] is False
    assert "does not agree with its content hash" in outcome.error


async def test_tail_of_the_log_is_tail_of_its_events(cli: Cli, log: PostgresEventLog, instance: UUID) -> None:
    await append(log, instance, 3)
    found = await cli.json("log", "tail")
    assert [event["position"] for event in found["events"]] == [1, 2, 3]
    assert await cli.json("events", "tail") == found
    assert (await cli.json("log", "tail", "--from", found["cursor"]))["events"] == []


@pytest.mark.parametrize("last", [2, 1001], ids=["one event", "a whole page of events"])
async def test_a_gap_is_said_to_be_one(
    cli: Cli, log: PostgresEventLog, instance: UUID, owner: Connection, last: int
) -> None:
    await append(log, instance, 1003)
    await unguard(owner)
    await owner.execute(f"DELETE FROM {PARTITION} WHERE position BETWEEN 2 AND $1", last)
    for group in ("events", "log"):
        outcome = await cli.run(group, "tail", "--from", "start")
        assert outcome.code == 1
        assert outcome.error.startswith("emberlog: the log has no event at position 2,")
        assert outcome.error.count("\n") == 1
