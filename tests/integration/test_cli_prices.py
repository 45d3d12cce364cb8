"""`emberlog prices` and `emberlog costs`, as a user runs them."""

from __future__ import annotations

import base64
from datetime import UTC, datetime
from pathlib import Path

import pytest

from tests.support.cli import Cli
from tests.support.databases import with_user
from tests.support.projecting import Connection, Recorded, generated, write_log

MODEL = "text-embedding-3-small"


@pytest.fixture
def cli(migrated_dsn: str, tmp_path: Path) -> Cli:
    key_file = tmp_path / "secret.key"
    key_file.write_bytes(base64.b64encode(bytes(32)))
    return Cli(
        {
            "EMBERLOG_DATABASE_URL": with_user(migrated_dsn, "emberlog_gateway"),
            "EMBERLOG_DATABASE_OWNER_URL": migrated_dsn,
            "EMBERLOG_SECRET_KEY_FILE": str(key_file),
        }
    )


async def test_prices_are_listed_set_shown_and_ended(cli: Cli) -> None:
    await cli.json("tenants", "create", "acme")
    shipped = await cli.json("prices", "list", "--model", MODEL)
    assert sorted((p["provider"], p["usd_per_million"], p["effective"], p["for_tenant"]) for p in shipped) == [
        ("azure", "0.022", True, None),
        ("openai", "0.02", True, None),
    ]
    own = await cli.json(
        "prices", "set", MODEL, "--provider", "openai", "--usd-per-million", "0.015", "--tenant", "acme", "--id", "acme/2027",
        "--unit", "character", "--source", "the contract",
    )  # fmt: skip
    assert (own["id"], own["unit_pico_usd"], own["unit"], own["effective"]) == ("acme/2027", 15_000, "character", True)
    assert await cli.json("prices", "show", "acme/2027") == own
    assert [p["id"] for p in await cli.json("prices", "list", "--tenant", "acme", "--effective")] == ["acme/2027"]
    ended = await cli.json("prices", "end", "acme/2027")
    assert (ended["effective"], ended["effective_until"] is None) == (False, False)
    made_up = await cli.json("prices", "set", MODEL, "--provider", "openai", "--unknown", "--from", "2999-01-01")
    assert (made_up["id"], made_up["unit_pico_usd"]) == (f"openai/{MODEL}/2999-01-01T00:00:00Z", None)
    told = await cli.run("prices", "list", "--model", MODEL)
    assert (told.code, told.out.count("\n")) == (0, 5)


REFUSED: list[tuple[list[str], int, str]] = [
    (["set", MODEL, "--provider", "openai"], 2, "--usd-per-million"),
    (["set", MODEL, "--provider", "openai", "--usd-per-million", "1", "--unknown"], 2, "--unknown"),
    (["set", MODEL, "--provider", "openai", "--usd-per-million", "0.1234567"], 2, "usd_per_million: price"),
    (["set", MODEL, "--provider", "openai", "--usd-per-million", "1", "--from", "2001-01-01"], 2, "effective_from"),
    (["set", MODEL, "--provider", "nobody", "--usd-per-million", "1"], 2, "provider: 'nobody' does not offer"),
    (["set", "nothing", "--provider", "p", "--usd-per-million", "1"], 1, "model_not_found"),
    (["show", "nothing"], 1, "not_found"),
    (["end", "nothing", "--at", "soon"], 2, "--at"),
]


async def test_what_cannot_be_is_refused_in_a_line_that_says_why(cli: Cli) -> None:
    for words, code, said in REFUSED:
        outcome = await cli.run("prices", *words)
        assert (outcome.code, outcome.out) == (code, ""), words
        assert said in outcome.error, words


async def test_costs_are_complete_up_to_the_head_and_grouped_as_asked(cli: Cli, owner: Connection) -> None:
    await cli.json("tenants", "create", "acme")
    at = datetime(2026, 1, 31, 12, tzinfo=UTC)
    await write_log(owner, [Recorded(at, "acme", generated(str(n), agent=f"a{n}", nano_usd=n)) for n in range(3)])
    found = await cli.json("costs", "--grain", "month", "--tenant", "acme")
    assert [(r["bucket"][:7], r["tenant"], r["agent"], r["nano_usd"]) for r in found["costs"]] == [
        ("2026-01", "acme", None, 3)
    ]
    assert found["complete_to"]["position"] == 4
    agents = await cli.json("costs", "--group-by", "agent", "--from", "2026-01-31", "--to", "2026-02-01")
    assert {r["agent"]: r["provider_nano_usd"] for r in agents["costs"]} == {"a0": 90, "a1": 90, "a2": 90}
    assert (await cli.run("costs", "--group-by", "colour")).code == 2
    assert (await cli.run("costs", "--tenant", "nobody")).code == 1
