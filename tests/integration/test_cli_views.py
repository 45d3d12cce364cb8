"""`emberlog models metrics` and `emberlog threads`, as a user runs them: what views say."""

from __future__ import annotations

import base64
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from domain.events import AlertRaised
from tests.support.cli import Cli
from tests.support.databases import with_user
from tests.support.projecting import Connection, Recorded, failed, generated, in_thread, requested, write_log

MODEL = "text-embedding-3-small"
AT = datetime.now(UTC) - timedelta(minutes=10)


@pytest.fixture
async def cli(migrated_dsn: str, owner: Connection, tmp_path: Path) -> Cli:
    """Two requests of acme to a model, and an alert of it."""
    (tmp_path / "secret.key").write_bytes(base64.b64encode(bytes(32)))
    cli = Cli(
        {
            "EMBERLOG_DATABASE_URL": with_user(migrated_dsn, "emberlog_gateway"),
            "EMBERLOG_DATABASE_OWNER_URL": migrated_dsn,
            "EMBERLOG_SECRET_KEY_FILE": str(tmp_path / "secret.key"),
        }
    )
    await cli.json("tenants", "create", "acme")
    await cli.json("tenants", "create", "globex")
    raised = AlertRaised(
        alert="a1", kind="price_unknown", severity="warning", summary="no price", at=1, labels={"model": MODEL}
    )
    await write_log(
        owner,
        [
            in_thread(Recorded(AT, "acme", requested("r1", model=MODEL)), "th-1"),
            in_thread(Recorded(AT, "acme", generated("r1", model=MODEL, nano_usd=7)), "th-1"),
            in_thread(Recorded(AT, "acme", failed("r2", model=MODEL)), "th-1"),
            Recorded(AT, "acme", raised),
        ],
    )
    return cli


async def test_a_models_metrics_are_complete_up_to_the_head(cli: Cli) -> None:
    found = await cli.json("models", "metrics", MODEL)
    assert (found["model"], found["degraded"]) == (MODEL, [])
    assert (found["usage"]["requests"], found["usage"]["failed"], found["usage"]["nano_usd"]) == (1, 1, 7)
    assert [(a["id"], a["state"]) for a in found["alerts"]] == [("a1", "raised")]
    other = await cli.json("models", "metrics", MODEL, "--tenant", "globex")
    assert (other["usage"]["requests"], other["usage"]["latency_ms"], other["alerts"]) == (0, None, [])
    assert (await cli.run("models", "metrics", "nothing")).code == 1
    assert (await cli.run("models", "metrics", MODEL, "--from", "2026-01-02", "--to", "2026-01-02")).code == 2


async def test_a_thread_lists_its_requests_and_outcomes(cli: Cli) -> None:
    found = await cli.json("threads", "show", "th-1", "--tenant", "acme")
    assert [(e["request_id"], e["state"], e["nano_usd"]) for e in found] == [
        ("r1", "requested", 0), ("r1", "generated", 7), ("r2", "failed", 0),
    ]  # fmt: skip
    assert await cli.json("threads", "show", "th-1", "--tenant", "globex") == []
    told = await cli.run("threads", "show", "th-1", "--tenant", "acme")
    assert (told.code, told.out.count("\n")) == (0, 4)
    assert (await cli.run("threads", "show", "th-1", "--tenant", "nobody")).code == 1
