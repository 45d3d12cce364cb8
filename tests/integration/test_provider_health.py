"""Reading the provider_health view: from the database, by the management API, by command."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, cast

import asyncpg
import httpx2 as httpx
import pytest
from prometheus_client import CollectorRegistry

from domain.events import Attempt, EventData, Failover
from domain.plane import ControlPlane
from domain.tenancy import Principal
from gateway.app import build_app
from gateway.control import Control
from gateway.reads.reads import Reads
from projections.connect import connect
from projections.provider_health import PROVIDER_HEALTH
from projections.provider_health.query import read_provider_health
from tests.support.cli import Cli
from tests.support.installing import settings_of
from tests.support.projecting import Connection, Recorded, failed, generated, write_log
from tests.support.provider_health import attested, breaker, deployment, health
from tests.support.views import fold_to
from tests.unit.wire.fake_service import FakeService

START = datetime(2026, 11, 21, 20, 0, tzinfo=UTC)
_TRIED = [
    Attempt(endpoint="eu", reason="timeout", ms=900),
    Attempt(endpoint="eu", reason="timeout", ms=100),
    Attempt(endpoint="us", reason="new_fault", ms=5),
]
HISTORY: list[EventData] = [
    deployment("eu"),
    generated("r1", endpoint="eu", provider_ms=40),
    generated("r2", endpoint="eu", provider_ms=60),
    generated("r3", endpoint="eu", cached_inputs=2),
    breaker("eu"),
    generated(
        "r4", endpoint="far", provider_ms=7, attempts=_TRIED,
        failover=Failover(model="m", endpoint="eu", reason="circuit_open"),
    ),
    failed("r5", endpoint="eu", attempts=[Attempt(endpoint="eu", reason="drifted", ms=0)]),
    attested("eu", space="m@1/8/unit", cosine_min=999_900),
    attested("eu", space="m@1/8/unit", passed=False, cosine_min=12_345),
    attested("eu", space="m@1/4/unit"),
    health("idle", "unknown", "nobody asked it"),
]  # fmt: skip


@pytest.fixture
async def told(owner: Connection, app_dsn: str) -> AsyncIterator[Connection]:
    """A connection to a database whose view holds the history."""
    events = [Recorded(START + timedelta(seconds=n), "acme", data) for n, data in enumerate(HISTORY)]
    head = await write_log(owner, events)
    connection = await connect(app_dsn, "provider health")
    await fold_to(connection, PROVIDER_HEALTH, head)
    yield connection
    await connection.close()


class _Views:
    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    @asynccontextmanager
    async def view(self, asker: Principal) -> AsyncIterator[asyncpg.Connection[asyncpg.Record]]:
        yield self._connection


async def test_the_view_tells_what_requests_met_and_how_each_endpoint_stands(told: Connection) -> None:
    found = {(h.endpoint, h.model): h for h in await read_provider_health(told)}
    assert list(found) == [("eu", "m"), ("far", "m"), ("idle", ""), ("us", "m")]
    eu = found["eu", "m"]
    assert (eu.answered, eu.latency_ms) == (2, 100), "an answer from the cache alone says nothing of the endpoint"
    assert (eu.failed_attempts, eu.failed, eu.failed_ms) == (3, {"timeout": 2, "drifted": 1}, 1000)
    assert eu.failovers == 1
    assert (eu.last_success_at, eu.last_failure_at) == (START + timedelta(seconds=2), START + timedelta(seconds=6))
    assert eu.circuit is not None
    assert (eu.circuit.state, eu.circuit.since, eu.circuit.reason) == ("open", START + timedelta(seconds=4), "failures")
    assert (eu.health, eu.deployment) == (None, "ready")
    assert [(a.space, a.passed, a.cosine_min) for a in eu.attestations] == [
        ("m@1/4/unit", True, None),
        ("m@1/8/unit", False, 0.012345),
    ]
    assert (found["us", "m"].failed, found["us", "m"].circuit) == ({"other": 1}, None)
    idle = found["idle", ""]
    assert idle.health is not None
    assert (idle.health.state, idle.health.reason, idle.answered) == ("unknown", "nobody asked it", 0)
    assert [h.endpoint for h in await read_provider_health(told, model="m", endpoint="eu")] == ["eu"]
    assert await read_provider_health(told, model="n") == []


async def test_operators_read_it_over_http_and_nobody_else(told: Connection) -> None:
    service = FakeService()
    service.control = Control(ControlPlane(), cast("Any", None))
    service.reads = cast("Reads", _Views(told))
    service.keys = {
        "acme": Principal("a", "acme", frozenset({"admin", "billing"})),
        "ops": Principal("p", None, frozenset({"operator"})),
    }
    transport = httpx.ASGITransport(app=build_app(service, CollectorRegistry()), raise_app_exceptions=False)
    async with httpx.AsyncClient(transport=transport, base_url="http://test") as http:

        async def ask(key: str, **query: Any) -> httpx.Response:
            return await http.get("/api/v1/provider-health", params=query, headers={"authorization": f"Bearer {key}"})

        assert (await ask("acme")).status_code == 403
        rows = (await ask("ops", endpoint="eu")).json()["endpoints"]
        assert [(r["endpoint"], r["answered"], r["failed"]) for r in rows] == [("eu", 2, {"timeout": 2, "drifted": 1})]
        assert rows[0]["circuit"] == {"state": "open", "since": "2026-11-21T20:00:04Z", "reason": "failures"}
        assert rows[0]["attestations"][1]["at"] == "2026-11-21T20:00:08Z"
        assert (await ask("ops", model="nothing")).json() == {"endpoints": []}


async def test_a_command_shows_it(told: Connection, migrated_dsn: str, tmp_path: Path) -> None:
    settings = settings_of(migrated_dsn, tmp_path)
    assert settings.database_url is not None
    cli = Cli(
        {
            "EMBERLOG_DATABASE_URL": settings.database_url.get_secret_value(),
            "EMBERLOG_DATABASE_OWNER_URL": migrated_dsn,
            "EMBERLOG_REDIS_URL": "none",
            "EMBERLOG_SECRET_KEY_FILE": str(settings.secret_key_file),
        }
    )
    [eu] = await cli.json("endpoints", "health", "--endpoint", "eu")
    assert (eu["answered"], eu["failovers"], eu["circuit"]["state"]) == (2, 1, "open")
    table = (await cli.run("endpoints", "health")).out
    assert "timeout 2, drifted 1" in table
    assert "@1/4/unit attested, @1/8/unit quarantined" in table
