"""Discovery by gateways on a real log: a provider's list is followed, tenants are told, and two gateways run it once."""

from __future__ import annotations

import base64
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path

import msgspec
import pytest

from domain import discovery
from domain.events import DiscoveryRan, MaintenanceRan
from domain.tenant_models import decide_tenant_model
from gateway.bench.simulator import Simulator, SimulatorOptions
from gateway.gateway import Gateway
from gateway.house import master_key
from gateway.places import Places
from gateway.settings import EndpointSettings, Settings
from tests.integration.test_shred_gateway import tokens
from tests.support.cli import Cli
from tests.support.databases import with_user
from tests.support.installing import installed, settings_of
from tests.support.listing import Listed
from tests.support.waiting import until

SMALL, LARGE, ADA = "text-embedding-3-small", "text-embedding-3-large", "text-embedding-ada-002"


@pytest.fixture
def settings(migrated_dsn: str, tmp_path: Path) -> Settings:
    endpoint = EndpointSettings(name="main", provider="openai", base_url="http://127.0.0.1:9/v1", models={SMALL: ""})
    return settings_of(migrated_dsn, tmp_path).model_copy(update={"endpoints": [endpoint]})


@asynccontextmanager
async def gateway_of(owner_dsn: str, settings: Settings, provider: Listed) -> AsyncIterator[Gateway]:
    places = Places(with_user(owner_dsn, "emberlog_gateway"), owner_dsn, None)
    gateway = await Gateway.open(settings, places, master_key(settings))
    gateway.endpoints.pool.providers["main"] = provider
    try:
        yield gateway
    finally:
        await gateway.close()


async def test_a_list_that_adds_repeats_garbles_and_deprecates_is_followed_and_tenants_are_told(
    migrated_dsn: str, tmp_path: Path, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(discovery, "APART_SECONDS", 0)
    async with installed(migrated_dsn, tmp_path) as installation:
        await tokens(installation)
    provider = Listed(SMALL, LARGE, ADA)
    async with gateway_of(migrated_dsn, settings, provider) as gateway:
        await gateway.control.run(
            partial(decide_tenant_model, tenant="acme", name=ADA, wanted={}, operator=True, now=time.time(), actor="t"),
            stream="tenant/acme",
        )
        await gateway.discovery.run()
        provider.says(SMALL, LARGE, "text-embedding-4", "text-embedding-4", garbled=1)
        [second] = await gateway.discovery.run()
        assert (second.found, second.added, second.deprecated, second.skipped) == (3, 1, 0, 1)
        new = gateway.plane.models.models["text-embedding-4"]
        assert (new.state, new.origin, new.offerings[0].provider) == ("draft", "discovery", "openai")
        assert "text-embedding-4" not in gateway.models().models, "no request sees a draft"
        [third] = await gateway.discovery.run()
        assert (third.added, third.deprecated, third.gone) == (0, 1, [ADA])
        assert gateway.models().models[ADA].state == "deprecated", "the catalogue of requests follows"
        [alert] = await gateway.alerts.alerts("acme", kind="model_deprecated")
        assert (alert.state, alert.labels["model"]) == ("raised", ADA)
        assert await gateway.alerts.alerts("globex", kind="model_deprecated") == []


async def test_two_gateways_run_what_is_asked_for_once_and_a_new_one_knows_what_it_showed(
    migrated_dsn: str, settings: Settings
) -> None:
    provider = Listed(SMALL, LARGE, ADA)
    async with (
        gateway_of(migrated_dsn, settings, provider) as one,
        gateway_of(migrated_dsn, settings, provider) as two,
    ):

        async def known() -> bool:
            return "discovery" in {s.name for s in await one.schedules.all()}

        await until(known, what="a gateway has asked for the task")
        provider.go.clear()
        await one.schedules.run("discovery")

        async def running() -> bool:
            return (await two.schedules.run("discovery")).state == "running"

        await until(running, what="one of them has taken it", timeout=20)
        for gateway in (one, two):
            [task] = [t for t in gateway._scheduler._tasks if t.name == "discovery"]
            assert not await gateway._scheduler.once(task)
        provider.go.set()

        async def ended() -> bool:
            return (await one.schedules.one("discovery")).last_run is not None

        await until(ended, what="the run has ended")
        shown = await two.schedules.one("discovery")
        assert shown.last_run is not None
        assert (shown.last_run.error, shown.last_run.result) == (
            None,
            {"providers": 1, "failed": 0, "found": 3, "added": 0, "changed": 0, "deprecated": 0, "skipped": 0},
        )
        assert (provider.asked, shown.state, shown.period_seconds) == (1, "waiting", 86400)
        events = [e.type for e in await one._log.read(0, 1000) if e.type in (DiscoveryRan.TYPE, MaintenanceRan.TYPE)]
        assert sorted(events) == [DiscoveryRan.TYPE, MaintenanceRan.TYPE]
        await two.catch_up()
        assert two.plane.discoveries.sources["openai@127.0.0.1:9"].listed == frozenset((SMALL, LARGE, ADA))


async def test_the_command_reads_the_lists_now_and_says_what_came_of_each(migrated_dsn: str, tmp_path: Path) -> None:
    key, config = tmp_path / "secret.key", tmp_path / "emberlog.toml"
    key.write_bytes(base64.b64encode(bytes(32)))
    endpoint = '[[endpoints]]\nname = "{}"\nprovider = "openai"\nbase_url = "{}"\nmodels = ["text-embedding-3-small"]\n'
    async with Simulator(SimulatorOptions()) as simulator:
        config.write_text(
            endpoint.format("here", simulator.base_url) + endpoint.format("gone", "http://127.0.0.1:9/v1")
        )
        cli = Cli({
            "EMBERLOG_DATABASE_URL": with_user(migrated_dsn, "emberlog_gateway"),
            "EMBERLOG_DATABASE_OWNER_URL": migrated_dsn,
            "EMBERLOG_SECRET_KEY_FILE": str(key),
            "EMBERLOG_CONFIG": str(config),
            "EMBERLOG_REDIS_URL": "none",
            "EMBERLOG_ATTEST_ENDPOINTS": "false",
        })  # fmt: skip
        ran = await cli.run("models", "discover", "--provider", "openai", "--json")
    told = {s["source"]: s for s in msgspec.json.decode(ran.out)}
    here = told.pop(f"openai@{simulator.url.removeprefix('http://')}")
    assert ran.code == 1, "one of them could not be used"
    assert (here["found"], here["listed"], here["error"]) == (3, sorted((SMALL, LARGE, ADA)), None)
    [gone] = told.values()
    assert "connection" in gone["error"]
