"""The commands as a user runs them, on a database of their own: processes, exit codes, standard output and error."""

from __future__ import annotations

import asyncio
import base64
import getpass
import json
import re
import sys
import time
from pathlib import Path
from uuid import UUID, uuid4

import pytest

from adapters.postgres.migrator import load_migrations
from domain.cursor import encode_cursor
from domain.decoding import decode_data
from domain.tenancy import Directory
from tests.support.cli import Cli, Outcome
from tests.support.databases import execute, with_user

TOKEN = re.compile(r"em_([0-9a-f]{16})_[A-Za-z0-9_-]{43}")


@pytest.fixture
def key_file(tmp_path: Path) -> Path:
    path = tmp_path / "secret.key"
    path.write_bytes(base64.b64encode(bytes(32)))
    return path


@pytest.fixture
def cli(migrated_dsn: str, key_file: Path) -> Cli:
    return external(migrated_dsn, EMBERLOG_SECRET_KEY_FILE=str(key_file))


def external(owner_dsn: str, **more: str) -> Cli:
    """Commands on this database, logged in as the gateway is."""
    return Cli(
        {
            "EMBERLOG_DATABASE_URL": with_user(owner_dsn, "emberlog_gateway"),
            "EMBERLOG_DATABASE_OWNER_URL": owner_dsn,
            **more,
        }
    )


def refused(outcome: Outcome, code: int = 1) -> str:
    """The one line on standard error of a command that failed, which printed nothing else."""
    assert (outcome.code, outcome.out) == (code, "")
    return outcome.error


async def test_a_tenant_and_its_key_are_made_listed_and_revoked(cli: Cli) -> None:
    assert await cli.json("tenants", "create", "acme") == {"id": "acme"}
    created = await cli.json(
        "keys", "create", "--tenant", "acme", "--scopes", "agent,admin", "--name", "ci", "--agent", "a-1"
    )
    match = TOKEN.fullmatch(created["key"])
    assert match is not None
    assert created == {"key": created["key"], "id": match[1]}

    tenants = await cli.json("tenants", "list")
    assert [t["id"] for t in tenants] == ["acme"]
    [key] = await cli.json("keys", "list", "--tenant", "acme")
    assert key["id"] == created["id"]
    assert (key["tenant"], key["scopes"], key["name"], key["revoked"]) == ("acme", ["admin", "agent"], "ci", False)
    assert (key["agent"], key["created_by"]) == ("a-1", f"cli:{getpass.getuser()}")

    assert await cli.json("keys", "revoke", created["id"]) == {"id": created["id"], "revoked": True}
    assert await cli.json("keys", "revoke", created["id"]) == {"id": created["id"], "revoked": True}
    [key] = await cli.json("keys", "list", "--tenant", "acme")
    assert key["revoked"] is True
    events = (await cli.json("events", "tail", "--tenant", "acme"))["events"]
    assert [e["type"] for e in events] == ["tenant.created", "key.created", "key.revoked"]
    assert {e["data"]["actor"] for e in events} == {f"cli:{getpass.getuser()}"}
    assert [e["version"] for e in events] == [1, 2, 3]


async def test_no_list_and_no_event_shows_a_keys_secret(cli: Cli) -> None:
    created = await cli.json("keys", "create", "--scopes", "operator,billing")
    secret = created["key"].split("_", 2)[2][-20:]
    for words in (["keys", "list"], ["keys", "list", "--json"], ["events", "tail"], ["events", "tail", "--json"]):
        outcome = await cli.run(*words)
        assert outcome.code == 0
        assert secret not in outcome.out + outcome.error
        assert created["id"] in outcome.out or "key.created" in outcome.out
    [event] = [
        e for e in (await cli.json("events", "tail"))["events"]
        if e["type"] == "key.created" and e["data"]["key"] == created["id"]
    ]  # fmt: skip
    assert (event["stream"], event["tenant"]) == ("system", "_system")


async def test_the_directory_of_a_gateway_accepts_a_key_made_by_the_command(cli: Cli) -> None:
    created = await cli.json("keys", "create", "--scopes", "operator", "--expires-in", "1h")
    directory = Directory()
    for event in (await cli.json("events", "tail"))["events"]:
        directory.apply(
            event["position"],
            event["tenant"],
            decode_data(event["type"], json.dumps(event["data"]).encode(), event["schema_version"]),
        )
    principal = directory.authenticate(created["key"], time.time())
    assert (principal.key, principal.tenant, set(principal.scopes)) == (created["id"], None, {"operator"})
    assert principal.expires_at is not None
    assert 3500 < principal.expires_at - time.time() <= 3600


async def test_a_tenant_that_exists_is_not_made_again(cli: Cli) -> None:
    await cli.run("tenants", "create", "twice")
    assert refused(await cli.run("tenants", "create", "twice", "--json")) == "emberlog: tenant twice already exists\n"


async def test_a_shredded_tenant_is_not_made_again_and_the_refusal_says_why(cli: Cli, tmp_path: Path) -> None:
    await cli.run("tenants", "create", "gone")
    shredded = await cli.run("tenants", "shred", "gone", "--yes", "--ledger", str(tmp_path / "shredded.ndjson"))
    assert shredded.code == 0, shredded.error
    told = refused(await cli.run("tenants", "create", "gone"))
    assert told == "emberlog: tenant gone was shredded: its name stays taken, choose another\n"


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["tenants", "create", "Not Good"], "tenant name 'Not Good': expected"),
        (["keys", "create", "--scopes", "root"], "unknown scopes ['root']"),
        (["keys", "create", "--scopes", "operator", "--tenant", "x"], "operator is for installation keys only"),
        (["keys", "create"], "Missing option '--scopes'"),
        (["keys", "create", "--scopes", "agent", "--expires-in", "soon"], "'soon' is no duration"),
        (["keys", "create", "--scopes", "agent", "--expires-at", "2001-01-01"], "has passed"),
        (["keys", "create", "--scopes", "agent", "--expires-at", "2101-01-01", "--expires-in", "1d"], "give one of"),
        (["keys", "revoke", "em_0123456789abcdef_SECRETSECRET"], "expected the id of a key"),
        (["usage", "--grain", "week"], "'week' is not one of"),
        (["usage", "--from", "yesterday"], "'yesterday' is no time"),
        (["usage", "--as-of", "0001-01-01T00:00:00+14:00"], "'0001-01-01T00:00:00+14:00' is no time"),
        (["usage", "--to", "9999-12-31T23:59:59-01:00"], "'9999-12-31T23:59:59-01:00' is no time"),
        (["usage", "--from", "2026-02-01", "--to", "2026-01-01"], "--to must be later"),
        (["nonsense"], "No such command"),
    ],
)
async def test_wrong_usage_ends_with_exit_code_2_and_says_what_was_expected(
    cli: Cli, words: list[str], says: str
) -> None:
    error = refused(await cli.run(*words, "--json"), code=2)
    assert says in error
    assert "SECRET" not in error


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["keys", "create", "--scopes", "agent", "--tenant", "nobody"], "there is no tenant 'nobody'"),
        (["keys", "list", "--tenant", "nobody"], "there is no tenant 'nobody'"),
        (["keys", "revoke", "0123456789abcdef"], "there is no key 0123456789abcdef"),
        (["usage", "--tenant", "nobody"], "there is no tenant 'nobody'"),
        (["events", "tail", "--from", "nonsense"], "invalid_cursor"),
        (["events", "tail", "--from", encode_cursor(UUID(int=5), 1)], "invalid_cursor: this cursor belongs to another log"),
    ],
)  # fmt: skip
async def test_what_cannot_be_done_ends_with_exit_code_1_and_one_line(cli: Cli, words: list[str], says: str) -> None:
    error = refused(await cli.run(*words, "--json"))
    assert says in error
    assert error.startswith("emberlog: ")
    assert error.count("\n") == 1


async def test_a_cursor_leads_to_what_came_after_it(cli: Cli) -> None:
    await cli.run("tenants", "create", "before")
    first = await cli.json("events", "tail")
    assert await cli.json("events", "tail", "--from", first["cursor"]) == {"events": [], "cursor": first["cursor"]}
    await cli.run("tenants", "create", "after")
    second = await cli.json("events", "tail", "--from", first["cursor"])
    assert [e["data"]["tenant"] for e in second["events"]] == ["after"]
    head = await cli.json("log", "head")
    assert head["cursor"] == second["cursor"]
    assert head["position"] == second["events"][0]["position"]


async def test_a_cursor_of_another_log_and_one_ahead_of_the_log_are_refused_and_the_log_is_untouched(cli: Cli) -> None:
    head = await cli.json("log", "head")
    incarnation = UUID(head["incarnation"])
    for cursor, says in (
        (encode_cursor(incarnation, head["position"] + 1), "ahead of the log: start from the beginning"),
        (encode_cursor(uuid4(), head["position"]), "belongs to another log, or to this one before it was restored"),
        (head["cursor"][:-1], "this is not a cursor: send one exactly as it was received"),
    ):
        error = refused(await cli.run("events", "tail", "--from", cursor, "--json"))
        assert error.startswith("emberlog: invalid_cursor: ")
        assert says in error
        assert cursor not in error
    assert await cli.json("log", "head") == head


async def test_events_are_filtered_by_tenant_and_type(cli: Cli) -> None:
    await cli.run("tenants", "create", "filtered")
    await cli.run("keys", "create", "--tenant", "filtered", "--scopes", "agent")
    found = await cli.json("events", "tail", "--tenant", "filtered", "--types", "key.created,key.revoked")
    assert [(e["tenant"], e["type"]) for e in found["events"]] == [("filtered", "key.created")]
    unknown = await cli.run("events", "tail", "--types", "key.created,key.creatd")
    assert unknown.code == 2
    assert "there are no events 'key.creatd'" in unknown.error


async def test_help_is_shown_without_loading_what_only_a_gateway_needs(cli: Cli) -> None:
    code = (
        "import sys, gateway.cli\n"
        "sys.stderr.write(', '.join(m for m in ('asyncpg', 'numpy', 'pydantic', 'starlette', 'redis', 'uvicorn', 'rich.console') if m in sys.modules))"
    )
    process = await asyncio.create_subprocess_exec(sys.executable, "-c", code, stderr=asyncio.subprocess.PIPE)
    _, error = await process.communicate()
    assert error.decode() == ""
    outcome = await cli.run("--help")
    assert outcome.code == 0
    assert "tenants" in outcome.out


async def test_a_reader_that_leaves_early_is_no_failure(cli: Cli) -> None:
    await cli.run("tenants", "create", "piped")
    process = await asyncio.create_subprocess_shell(
        f"{sys.executable} -m gateway.cli events tail | true; exit ${{PIPESTATUS[0]}}",
        env=cli.environment, executable="/bin/bash", stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    _, error = await process.communicate()
    assert (process.returncode, error.decode()) == (0, "")


async def test_wrong_settings_are_named_by_their_path() -> None:
    cli = Cli({"EMBERLOG_WORKERS": "many"})
    assert "workers" in refused(await cli.run("tenants", "list"))


async def test_an_unreachable_database_is_said_in_one_line_without_its_password() -> None:
    cli = Cli({"EMBERLOG_DATABASE_URL": "postgresql://emberlog:hunter2@127.0.0.1:1/emberlog"})
    error = refused(await cli.run("tenants", "list", "--json"))
    assert error.count("\n") == 1
    assert "hunter2" not in error


async def test_a_database_without_the_schema_is_refused_until_it_is_migrated(postgres_dsn: str, key_file: Path) -> None:
    cli = external(postgres_dsn, EMBERLOG_SECRET_KEY_FILE=str(key_file))
    assert "run `emberlog migrate`" in refused(await cli.run("tenants", "list", "--json"))
    every = [m.name for m in load_migrations()]
    assert await cli.json("migrate") == {"applied": every, "after_deploy_pending": []}
    await execute(postgres_dsn, "GRANT emberlog_app TO emberlog_gateway")
    assert await cli.json("tenants", "list") == []
    assert await cli.json("usage") == {"usage": [], "complete_to": {"time": None, "position": 0}}
    assert (await cli.json("events", "tail"))["events"] == []
    assert (await cli.json("log", "head"))["position"] == 0


async def test_without_the_installations_key_no_tenant_is_made_but_lists_work(migrated_dsn: str) -> None:
    cli = external(migrated_dsn)
    assert "EMBERLOG_SECRET_KEY_FILE" in refused(await cli.run("tenants", "create", "acme"))
    assert await cli.json("tenants", "list") == []


async def test_a_view_that_does_not_reach_the_head_in_time_is_not_passed_off_as_complete(
    cli: Cli, migrated_dsn: str
) -> None:
    await cli.run("tenants", "create", "acme")
    await execute(
        migrated_dsn,
        "INSERT INTO projections.cursors (name, owner, fence, lease_until) VALUES ('usage', gen_random_uuid(), 1, 'infinity')",
    )
    error = refused(await cli.run("usage", "--wait", "0.5", "--json"))
    assert "position 0 of 1" in error


async def test_the_version_is_told() -> None:
    from importlib.metadata import version

    assert (await Cli({}).run("--version")).out.strip() == version("emberlog")
