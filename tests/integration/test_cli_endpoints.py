"""`emberlog endpoints`: listed from settings and log, shown without secrets, circuits reset."""

from __future__ import annotations

import base64
import time
from pathlib import Path
from uuid import UUID

import pytest

from adapters.postgres.event_log import PostgresEventLog
from domain.events import BreakerChanged, DeploymentChanged, EndpointSpec
from gateway.decisions import append_decision
from tests.support.cli import Cli
from tests.support.databases import with_user

SETTINGS = """
[[endpoints]]
name = "main"
provider = "openai"
base_url = "http://main.test/v1"
models = ["text-embedding-3-small"]
"""


@pytest.fixture
async def cli(migrated_dsn: str, tmp_path: Path) -> Cli:
    key, config = tmp_path / "secret.key", tmp_path / "emberlog.toml"
    key.write_bytes(base64.b64encode(bytes(32)))
    config.write_text(SETTINGS)
    made = Cli({
        "EMBERLOG_DATABASE_URL": with_user(migrated_dsn, "emberlog_gateway"),
        "EMBERLOG_DATABASE_OWNER_URL": migrated_dsn,
        "EMBERLOG_SECRET_KEY_FILE": str(key),
        "EMBERLOG_CONFIG": str(config),
    })  # fmt: skip
    assert (await made.run("tenants", "create", "acme")).code == 0
    return made


async def test_endpoints_are_listed_shown_and_their_circuits_reset(
    cli: Cli, log: PostgresEventLog, instance: UUID
) -> None:
    at = time.time_ns() // 1000
    spec = EndpointSpec(provider="openai", models={"text-embedding-3-small": ""}, credential="mine")
    deployed = DeploymentChanged("own", "d", "text-embedding-3-small", "ready", at, spec=spec, owner="acme")
    await append_decision(log, instance, "acme", "endpoint/own", deployed)
    opened = BreakerChanged("main", "open", "closed", "failures", at, 5, until=at + 600_000_000, instance="i")
    await append_decision(log, instance, "_system", "endpoint/main", opened)

    listed = {e["name"]: e for e in await cli.json("endpoints", "list")}
    assert {(e["name"], e["origin"], e["owner"], e["circuit"]["state"]) for e in listed.values()} == {
        ("main", "settings", None, "open"),
        ("own", "deployed", "acme", "closed"),
    }
    assert await cli.json("endpoints", "show", "main") == listed["main"]
    assert listed["main"]["base_url"] == "http://main.test/v1"
    assert (listed["main"]["health"], listed["main"]["lanes"]) == (None, None)
    assert [e["name"] for e in await cli.json("endpoints", "list", "--tenant", "acme")] == ["own"]
    assert await cli.json("endpoints", "list", "--model", "other") == []
    for_all = DeploymentChanged("more", "e", "text-embedding-3-small", "ready", at, spec=spec)
    await append_decision(log, instance, "_system", "endpoint/more", for_all)
    model = await cli.json("models", "show", "text-embedding-3-small")
    assert model["endpoints"] == ["main", "more"], "what serves everybody, whether of the settings or deployed"
    [openai] = [p for p in await cli.json("models", "providers") if p["name"] == "openai"]
    assert openai["endpoints"] == ["main", "more", "own"]
    table = await cli.run("endpoints", "list")
    assert (table.code, "open" in table.out) == (0, True)
    shown = (await cli.run("endpoints", "show", "main")).out
    assert shown.startswith("name ")
    assert "\ntext-embedding-3-small  not attested yet\n" in shown
    assert " open until 20" in shown
    assert "lanes" not in shown, "what no gateway was asked for is not shown as empty"

    circuit = await cli.json("endpoints", "reset-breaker", "main")
    assert (circuit["state"], circuit["reason"], circuit["until"]) == ("closed", "reset", None)
    again = await cli.run("endpoints", "reset-breaker", "main")
    assert (again.code, again.out) == (0, "is closed already: the circuit of main\n")
    lost = await cli.run("endpoints", "reset-breaker", "nowhere")
    assert (lost.code, "there is no endpoint 'nowhere'" in lost.error) == (1, True)


@pytest.mark.parametrize(
    ("more", "model", "told"),
    [
        ('api_key_env = "UNSET"', "text-embedding-3-small", "the environment variable UNSET (api_key_env) is not set"),
        ("", "text-embedding-3-smal", "the catalogue has no model 'text-embedding-3-smal'"),
    ],
)
async def test_a_command_that_opens_the_endpoints_says_what_is_wrong_with_one(
    cli: Cli, tmp_path: Path, more: str, model: str, told: str
) -> None:
    (tmp_path / "emberlog.toml").write_text(SETTINGS.replace("text-embedding-3-small", model) + more)
    failed = await cli.run("models", "attest", "text-embedding-3-small")
    assert (failed.code, failed.error.startswith(f"emberlog: endpoint 'main': {told}")) == (1, True), failed.error
