"""`emberlog quotas`: set, listed with what was used and is reserved, removed; what is wrong is refused by name."""

from __future__ import annotations

import base64
from datetime import UTC, datetime
from pathlib import Path

import msgspec
import pytest

from adapters.postgres.pool import Connection
from domain.events import EmbeddingRequested
from projections.quota.query import state_of
from tests.support.cli import Cli
from tests.support.databases import with_user
from tests.support.projecting import Recorded, generated, requested, write_log

MODEL = "text-embedding-3-small"


@pytest.fixture
async def cli(migrated_dsn: str, tmp_path: Path) -> Cli:
    key = tmp_path / "secret.key"
    key.write_bytes(base64.b64encode(bytes(32)))
    made = Cli({
        "EMBERLOG_DATABASE_URL": with_user(migrated_dsn, "emberlog_gateway"),
        "EMBERLOG_DATABASE_OWNER_URL": migrated_dsn,
        "EMBERLOG_SECRET_KEY_FILE": str(key),
    })  # fmt: skip
    assert (await made.run("tenants", "create", "acme")).code == 0
    return made


async def test_quotas_are_set_shown_as_they_stand_and_removed(cli: Cli, owner: Connection) -> None:
    day = ("--tenant", "acme", "--unit", "tokens", "--window", "day")
    version = (await cli.json("tenants", "show", "acme"))["version"]
    made = await cli.json("quotas", "set", *day, "--limit", "20", "--expected-version", str(version))
    assert (made["changed"], made["version"]) == (True, version + 1)
    assert (await cli.json("quotas", "set", *day, "--limit", "20"))["changed"] is False
    for lost in (("set", *day, "--limit", "30"), ("remove", *day)):
        late = await cli.run("quotas", *lost, "--expected-version", str(version))
        assert (late.code, "version_conflict" in late.error) == (1, True)
    model = ("--tenant", "acme", "--scope", "model", "--subject", MODEL, "--unit", "requests")
    await cli.json("quotas", "set", *model, "--limit", "1", "--soft")

    now = datetime.now(UTC)
    going = requested("going", model=MODEL)
    assert isinstance(going, EmbeddingRequested)
    at = int(now.timestamp() * 1e6)
    await write_log(
        owner,
        [
            Recorded(now, "acme", generated("1", model=MODEL, billed_tokens=17, day=now.date().isoformat())),
            Recorded(now, "acme", generated("2", model="other", billed_tokens=2, day="2020-01-01")),
            Recorded(now, "acme", msgspec.structs.replace(going, at=at)),
        ],
    )
    listed = {quota["id"]: quota for quota in await cli.json("quotas", "list", "--tenant", "acme")}
    tokens, requests = listed["tenant/tokens/day"], listed[f"model/{MODEL}/requests/month"]
    assert (tokens["used"], tokens["reserved"], tokens["limit"], tokens["state"]) == (17, 9, 20, "warning")
    assert (requests["used"], requests["reserved"], requests["hard"], requests["state"]) == (1, 1, False, "exceeded")
    assert tokens["resets_at"].endswith("T00:00:00Z")
    shown = await cli.json("quotas", "show", "tenant/tokens/day", "--tenant", "acme")
    assert shown == tokens
    table = await cli.run("quotas", "list")
    assert table.code == 0
    assert "tenant/tokens/day" in table.out

    assert (await cli.json("quotas", "remove", *model))["changed"] is True
    assert (await cli.json("quotas", "remove", *model))["changed"] is False
    assert [q["id"] for q in await cli.json("quotas", "list", "--tenant", "acme")] == ["tenant/tokens/day"]
    missing = await cli.run("quotas", "show", "model/x/requests/month", "--tenant", "acme")
    assert (missing.code, missing.out) == (1, "")


async def test_what_is_wrong_with_a_quota_is_named_and_nothing_is_set(cli: Cli) -> None:
    for words, said in (
        (("--unit", "tokens", "--limit", "nan"), "no whole number"),
        (("--unit", "tokens", "--limit", "9" * 19), "limit: expected a whole number"),
        (("--unit", "dollars", "--limit", "1", "--window", "hour"), "unit: is 'dollars'"),
    ):
        outcome = await cli.run("quotas", "set", "--tenant", "acme", *words)
        assert outcome.code == 2
        assert said in " ".join(outcome.error.replace("│", " ").split())
    outcome = await cli.run("quotas", "set", "--tenant", "nobody", "--unit", "tokens", "--limit", "1")
    assert outcome.code == 1
    assert "there is no tenant 'nobody'" in outcome.error
    assert await cli.json("quotas", "list", "--tenant", "acme") == []


@pytest.mark.parametrize(
    ("used", "limit", "state"),
    [
        (0, 100, "ok"), (80, 100, "ok"), (81, 100, "warning"), (90, 100, "warning"), (91, 100, "high"), (99, 100, "high"),
        (100, 100, "exceeded"), (101, 100, "exceeded"), (0, 0, "exceeded"), (4, 5, "ok"), (10**18, 10**18, "exceeded"),
    ],
)  # fmt: skip
def test_the_state_tells_how_much_of_a_quota_is_used(used: int, limit: int, state: str) -> None:
    assert state_of(used, limit) == state
