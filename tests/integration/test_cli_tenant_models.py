"""`emberlog tenant-models`, `agents` and `models select`, as a user runs them."""

from __future__ import annotations

import base64
import json
from pathlib import Path

import pytest

from tests.support.cli import Cli
from tests.support.databases import with_user

LOCAL, SMALL, LARGE = "all-MiniLM-L6-v2", "text-embedding-3-small", "text-embedding-3-large"

ENDPOINTS = f"""
[[endpoints]]
name = "openai-main"
provider = "openai"
base_url = "http://127.0.0.1:9"
models = ["{SMALL}", "{LARGE}"]
"""


@pytest.fixture
async def cli(migrated_dsn: str, tmp_path: Path) -> Cli:
    """The tenant acme exists; an endpoint serves two models."""
    (tmp_path / "secret.key").write_bytes(base64.b64encode(bytes(32)))
    (tmp_path / "emberlog.toml").write_text(ENDPOINTS)
    cli = Cli(
        {
            "EMBERLOG_DATABASE_URL": with_user(migrated_dsn, "emberlog_gateway"),
            "EMBERLOG_DATABASE_OWNER_URL": migrated_dsn,
            "EMBERLOG_SECRET_KEY_FILE": str(tmp_path / "secret.key"),
            "EMBERLOG_CONFIG": str(tmp_path / "emberlog.toml"),
        }
    )
    await cli.json("tenants", "create", "acme")
    return cli


async def test_models_of_a_tenant_are_set_listed_made_the_default_and_removed(cli: Cli) -> None:
    acme = ("--tenant", "acme")
    large = await cli.json(
        "tenant-models", "configure", LARGE, *acme, "--priority", "500", "--fallback-models", SMALL, "--daily-token-limit", "1000",
        "--setting", "team=search", "--custom-cost-per-token-pico-usd", "90000",
    )  # fmt: skip
    assert (large["state"], large["priority"], large["fallback_models"]) == ("enabled", 500, [SMALL])
    assert (large["daily_token_limit"], large["custom_cost_per_token_pico_usd"]) == (1000, 90_000)
    await cli.json("tenant-models", "configure", SMALL, *acme, "--disable")
    small = await cli.json("tenant-models", "configure", SMALL, *acme, "--enable", "--default")
    assert (small["is_default"], small["usable"]) == (True, True)
    listed = await cli.json("tenant-models", "list", *acme)
    assert [(m["id"], m["is_default"]) for m in listed] == [(LARGE, False), (SMALL, True)]
    refused = await cli.run("tenant-models", "remove", SMALL, *acme)
    assert (refused.code, "make another the default first" in refused.error) == (1, True)
    lost = await cli.run("tenant-models", "set-default", LARGE, *acme, "--expected-version", "1")
    assert (lost.code, "version_conflict" in lost.error) == (1, True)
    await cli.json("tenant-models", "set-default", LARGE, *acme)
    await cli.json("tenant-models", "remove", SMALL, *acme)
    raised = await cli.json("tenant-models", "configure", LARGE, *acme, "--daily-token-limit", "none")
    assert raised["daily_token_limit"] is None
    assert await cli.json("tenant-models", "show", LARGE, *acme) == raised


async def test_what_holds_for_every_request_of_a_tenant_is_shown_and_changed(cli: Cli) -> None:
    before = await cli.json("tenants", "show", "acme")
    assert before == {
        "tenant": "acme", "failover": "same_space", "time_zone": "UTC", "require_known_prices": False, "tier": "enterprise",
        "price_ceiling": "cheapest", "version": 1,
    }  # fmt: skip
    changed = await cli.json(
        "tenants", "configure", "acme", "--failover", "any", "--time-zone", "Europe/Paris", "--require-known-prices", "--tier", "pro",
        "--price-ceiling", "none", "--expected-version", "1",
    )  # fmt: skip
    assert changed == before | {
        "failover": "any", "time_zone": "Europe/Paris", "require_known_prices": True, "tier": "pro", "price_ceiling": "none",
        "version": 2,
    }  # fmt: skip
    back = await cli.json("tenants", "configure", "acme", "--no-require-known-prices")
    assert back == changed | {"require_known_prices": False, "version": 3}
    assert await cli.json("tenants", "show", "acme") == back
    lost = await cli.run("tenants", "configure", "acme", "--tier", "free", "--expected-version", "1")
    assert (lost.code, "version_conflict" in lost.error) == (1, True)
    wrong = await cli.run("tenants", "configure", "acme", "--time-zone", "Mars/Olympus")
    assert (wrong.code, "there is no time zone" in wrong.error) == (2, True)
    assert (await cli.run("tenants", "show", "nobody")).code == 1


async def test_agents_are_stated_and_get_their_models_and_selection_explains_itself(cli: Cli) -> None:
    acme = ("--tenant", "acme")
    made = await cli.json("agents", "set", "scout", *acme, "--models", LARGE, "--task-model", f"code={SMALL}")
    assert (made["agent_id"], made["version"]) == ("scout", 1)
    assert await cli.json("agents", "show", "scout", *acme) == made
    assert [a["id"] for a in await cli.json("agents", "list", *acme)] == ["scout"]
    got = await cli.json("agents", "models", "scout", *acme, "--task-type", "code")
    assert (got["primary_model"], got["selection_reason"], got["fallback_models"]) == (SMALL, "task_model", [LARGE])
    chosen = await cli.json("models", "select", *acme, "--agent", "scout", "--tokens", "1000")
    assert (chosen["model_id"], chosen["selection_reason"], chosen["estimated_cost_nano_usd"]) == (
        LARGE,
        "agent_model",
        130_000,
    )
    assert "reasons" not in chosen
    explained = await cli.json("models", "select", *acme, "--optimize", "cost", "--explain")
    reasons = {r["model"]: r["reason"] for r in explained["reasons"]}
    assert (reasons[SMALL], reasons[LARGE], reasons[LOCAL]) == (
        "any_cost",
        "in line behind it",
        "no configured endpoint serves it",
    )
    told = await cli.run("models", "select", *acme, "--explain")
    assert (told.code, SMALL in told.out) == (0, True)


async def test_where_no_model_is_left_selection_explains_that_too(cli: Cli) -> None:
    acme = ("--tenant", "acme")
    await cli.json("tenant-models", "configure", LOCAL, *acme)
    told = await cli.run("models", "select", *acme, "--explain")
    assert (told.code, [line.split()[0] for line in told.out.splitlines()[:2]]) == (1, ["model", LOCAL])
    assert "no_model_available" in told.error
    assert len(told.error) < 500
    plain = await cli.run("models", "select", *acme, "--explain", "--json")
    reasons = {r["model"]: r["reason"] for r in json.loads(plain.out)["reasons"]}
    assert (plain.code, reasons[LOCAL]) == (1, "no configured endpoint serves it")


WRONG: list[tuple[list[str], int, str]] = [
    (["tenant-models", "configure", "zebra", "--tenant", "acme"], 1, "model_not_found"),
    (["tenant-models", "configure", SMALL, "--tenant", "acme", "--priority", "-1"], 2, "priority"),
    (["tenant-models", "configure", SMALL, "--tenant", "acme", "--daily-token-limit", "-1"], 2, "--daily-token-limit"),
    (["tenant-models", "configure", SMALL, "--tenant", "acme", "--fallback-models", SMALL], 2, "fallback_models[0]"),
    (["tenant-models", "configure", SMALL, "--tenant", "nobody"], 1, "not_found"),
    (["tenant-models", "show", SMALL, "--tenant", "acme"], 1, "not_found"),
    (["agents", "set", "x", "--tenant", "acme", "--models", "zebra"], 2, "preferences.models[0]"),
    (["agents", "set", "x", "--tenant", "acme", "--strategy", "best"], 2, "preferences.strategy"),
    (["agents", "models", "x", "--tenant", "acme"], 1, "not_found"),
    (["models", "select", "--tenant", "acme", "--model", LOCAL], 1, "no_model_available"),
    (["models", "select", "--tenant", "acme", "--tokens", "0"], 2, "token_estimate"),
]


async def test_what_is_wrong_is_said_in_one_line(cli: Cli) -> None:
    for words, code, said in WRONG:
        outcome = await cli.run(*words)
        assert (outcome.code, outcome.out) == (code, ""), words
        assert said in outcome.error
