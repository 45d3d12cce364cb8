"""The pool: deployed endpoints are opened when they are called, with their own credential, and let go of when their calls have ended."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from adapters.providers.registry import EndpointError
from domain.catalogue import Endpoint
from domain.endpoints import Endpoints
from domain.events import CredentialRemoved, TenantShredded
from domain.plane import ControlPlane
from domain.ports.lists_models import ListedModel, Listing, ListsModels
from domain.ports.provider import ProviderError, ProviderFault
from gateway.catalogue.live import LiveCatalogue
from gateway.endpoints import pool as pooling
from gateway.endpoints.pool import EndpointPool
from tests.support.credentials import MemorySecrets
from tests.support.endpoints import CALL, Tellers, credential, deployed
from tests.support.waiting import until

CONFIGURED = Endpoint("main", "told", {"m": ""}, api_key_env="KEY")


@dataclass
class Pool:
    tellers: Tellers
    endpoints: Endpoints = field(default_factory=Endpoints)
    secrets: MemorySecrets = field(default_factory=MemorySecrets)
    busy: set[str] = field(default_factory=set)
    drain_seconds: float = 60.0

    def __post_init__(self) -> None:
        self.pool = EndpointPool(
            self.endpoints,
            [CONFIGURED],
            environ={"KEY": "from the environment"},
            store=Path("unused"),
            secrets=self.secrets,
            busy=lambda name: name in self.busy,
            drain_seconds=lambda: self.drain_seconds,
        )

    def deploy(self, name: str = "e", **fields: Any) -> Endpoint:
        found = deployed(self.endpoints, name, **fields)
        assert found is not None
        return found

    async def fault(self, endpoint: Endpoint) -> ProviderError:
        with pytest.raises(ProviderError) as caught:
            await self.pool.provider(endpoint).embed(CALL)
        return caught.value


@pytest.fixture
async def made(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Pool]:
    monkeypatch.setattr(pooling, "POLL_SECONDS", 0.0005)
    pool = Pool(Tellers().install(monkeypatch))
    yield pool
    await pool.pool.close()
    assert pool.tellers.open_now == []


async def test_configured_endpoints_are_open_from_the_start_and_their_names_are_taken(made: Pool) -> None:
    made.pool.open()
    assert (made.tellers.last.key, made.tellers.last.endpoint) == ("from the environment", CONFIGURED)
    assert made.pool.provider(CONFIGURED) is made.tellers.last
    deployed(made.endpoints, "main", base_url="http://elsewhere")
    other = made.deploy("other")
    assert made.pool.endpoints() == (CONFIGURED, other)
    made.tellers.refuse = EndpointError("endpoint 'main': no")
    with pytest.raises(EndpointError):
        made.pool.open()


async def test_a_deployed_endpoint_is_opened_by_its_first_call_and_once(made: Pool) -> None:
    endpoint = made.deploy()
    provider = made.pool.provider(endpoint)
    assert made.tellers.opened == []
    await asyncio.gather(*(provider.embed(CALL) for _ in range(20)))
    assert (len(made.tellers.opened), made.tellers.last.calls, made.tellers.last.key) == (1, 20, None)
    assert made.pool.provider(endpoint) is provider


async def test_a_tenants_endpoint_gets_its_own_credential_and_nothing_of_our_environment(made: Pool) -> None:
    made.secrets.kept["acme", "mine", 1] = "acme's own"
    made.secrets.kept["_system", "mine", 1] = "the installation's"
    for tenant in ("acme", "_system"):
        credential(made.endpoints, tenant, "mine", 1)
    for owner, key in (("acme", "acme's own"), (None, "the installation's")):
        endpoint = made.deploy(f"e-{owner}", owner=owner, credential="mine")
        await made.pool.provider(endpoint).embed(CALL)
        assert made.tellers.last.key == key
        assert made.tellers.last.environ == ({} if owner else {"KEY": "from the environment"})


async def test_a_new_secret_is_used_from_the_next_call_on_and_the_old_provider_ends_its_calls(made: Pool) -> None:
    made.secrets.kept = {("acme", "mine", 1): "old", ("acme", "mine", 2): "new"}
    credential(made.endpoints, "acme", "mine", 1)
    endpoint = made.deploy(owner="acme", credential="mine")
    provider = made.pool.provider(endpoint)
    made.tellers.shut = True
    call = asyncio.create_task(provider.embed(CALL))
    while not made.tellers.opened:
        await asyncio.sleep(0)
    old = made.tellers.last
    await old.called.wait()
    made.tellers.shut = False
    credential(made.endpoints, "acme", "mine", 2)
    await provider.embed(CALL)
    assert (made.tellers.last.key, old.closed) == ("new", False)
    old.gate.set()
    await call
    await until(lambda: old.closed, what="the old provider is closed")


async def test_what_cannot_be_opened_says_why_to_every_call_and_is_tried_again_when_its_credential_changes(
    made: Pool,
) -> None:
    endpoint = made.deploy(owner="acme", credential="mine")
    missing = await made.fault(endpoint)
    assert (missing.fault, "no credential 'mine'" in missing.detail) == (ProviderFault.AUTHENTICATION, True)
    credential(made.endpoints, "acme", "mine", 1)
    assert "gone" in (await made.fault(endpoint)).detail
    asked = made.secrets.read
    await made.fault(endpoint)
    assert made.secrets.read == asked, "it is not looked for at every call"
    made.secrets.kept["acme", "mine", 2] = "good"
    credential(made.endpoints, "acme", "mine", 2)
    await made.pool.provider(endpoint).embed(CALL)
    made.secrets.away = True
    credential(made.endpoints, "acme", "mine", 3)
    assert (await made.fault(endpoint)).fault is ProviderFault.CONNECTION
    made.endpoints.apply("acme", CredentialRemoved("mine"))
    assert "no credential" in (await made.fault(endpoint)).detail
    await until(lambda: not made.tellers.open_now, what="nothing of the old credential is open")


async def test_no_fault_repeats_the_secret_whoever_says_it(made: Pool, capsys: pytest.CaptureFixture[str]) -> None:
    secret = "sk-0123456789"
    made.secrets.kept["acme", "mine", 1] = secret
    credential(made.endpoints, "acme", "mine", 1)
    endpoint = made.deploy(owner="acme", credential="mine")
    for number, refusal in enumerate(
        (ValueError(f"endpoint 'e': bad key {secret}"), RuntimeError(secret), KeyError(secret)), 2
    ):
        made.tellers.refuse = refusal
        fault = await made.fault(endpoint)
        assert fault.fault is ProviderFault.AUTHENTICATION
        logged = "".join(capsys.readouterr())
        assert "endpoint_not_opened" in logged
        assert secret not in f"{fault} {fault.detail} {fault.__cause__} {logged}"
        made.secrets.kept["acme", "mine", number] = secret
        credential(made.endpoints, "acme", "mine", number)
    made.tellers.refuse = ValueError("endpoint 'e': the region is missing")
    assert "the region is missing" in (await made.fault(endpoint)).detail, "what holds no secret is told"


async def test_what_an_endpoint_leaves_out_is_the_providers_usual(made: Pool, monkeypatch: pytest.MonkeyPatch) -> None:
    made.tellers.install(monkeypatch, key="needed", base_url="https://told.test/v1", api_key_env="KEY")
    made.secrets.kept["acme", "mine", 1] = "acme's own"
    credential(made.endpoints, "acme", "mine", 1)
    for owner, name, key in ((None, None, "from the environment"), ("acme", "mine", "acme's own")):
        await made.pool.provider(made.deploy(f"e-{owner}", owner=owner, credential=name)).embed(CALL)
        assert (made.tellers.last.key, made.tellers.last.endpoint.base_url) == (key, "https://told.test/v1")
    assert (await made.fault(made.deploy("keyless", owner="acme"))).fault is ProviderFault.AUTHENTICATION


async def test_an_undeployed_endpoint_is_closed_when_nothing_is_under_way_there_any_more(made: Pool) -> None:
    endpoint = made.deploy()
    provider = made.pool.provider(endpoint)
    await provider.embed(CALL)
    told = made.tellers.last
    made.busy.add("e")
    deployed(made.endpoints, "e", "draining")
    made.pool.sync()
    drained = asyncio.create_task(made.pool.drained(endpoint))
    await provider.embed(CALL)  # what was queued is sent yet
    assert made.pool.provider(endpoint) is provider
    for _ in range(20):  # many looks of the one that waits
        await asyncio.sleep(0.001)
    assert [told.closed, drained.done()] == [False, False]
    made.busy.clear()
    await drained
    assert told.closed
    assert "was undeployed" in (await made.fault(endpoint)).detail
    assert "was undeployed" in str(await asyncio.gather(provider.embed(CALL), return_exceptions=True))
    assert len(made.tellers.opened) == 1, "nothing opens it again"


async def test_calls_that_outlast_the_drain_time_end_before_the_provider_is_closed(made: Pool) -> None:
    made.drain_seconds = 0.01
    endpoint = made.deploy()
    made.tellers.shut = True
    call = asyncio.create_task(made.pool.provider(endpoint).embed(CALL))
    while not made.tellers.opened:
        await asyncio.sleep(0)
    await made.tellers.last.called.wait()
    deployed(made.endpoints, "e", "draining")
    drained = asyncio.create_task(made.pool.drained(endpoint))
    for _ in range(20):
        await asyncio.sleep(0.001)
    assert "was undeployed" in (await made.fault(endpoint)).detail
    assert not drained.done()
    made.tellers.last.gate.set()
    await asyncio.gather(call, drained)


async def test_a_name_deployed_anew_is_another_place(made: Pool) -> None:
    before = made.deploy()
    await made.pool.provider(before).embed(CALL)
    after = made.deploy(options={}, base_url="http://elsewhere")
    await made.pool.provider(after).embed(CALL)
    assert [t.endpoint.base_url for t in made.tellers.opened] == [None, "http://elsewhere"]
    await made.pool.drained(before)
    assert [t.endpoint for t in made.tellers.open_now] == [after]


async def test_an_endpoint_that_is_loaded_is_open_and_serves_nobody_until_it_is_registered(made: Pool) -> None:
    endpoint = Endpoint("e", "told", {"m": ""})
    provider = made.pool.take_up(endpoint)
    await provider.warm_up()
    made.pool.sync()
    assert (made.pool.endpoints(), made.pool.provider(endpoint) is provider) == ((CONFIGURED,), True)
    await made.pool.release(endpoint)
    assert made.tellers.open_now == []
    other = Endpoint("e", "told", {"m": ""})
    again = made.pool.take_up(other)
    await again.warm_up()
    await made.pool.release(endpoint)
    assert len(made.tellers.open_now) == 1, "another deployment of the same is none of its business"
    await made.pool.release(other)


async def test_the_endpoints_of_a_shredded_tenant_are_let_go(made: Pool) -> None:
    endpoint = made.deploy(owner="acme")
    await made.pool.provider(endpoint).embed(CALL)
    version = made.pool.version
    made.endpoints.apply("acme", TenantShredded("acme"))
    made.pool.sync()
    await made.pool.drained(endpoint)
    assert (made.pool.endpoints(), made.pool.version > version, made.tellers.open_now) == ((CONFIGURED,), True, [])


async def test_the_catalogue_is_made_anew_when_what_is_deployed_changes() -> None:
    plane = ControlPlane()
    live = LiveCatalogue(plane, [CONFIGURED])
    before = live.current()
    assert live.current() is before
    deployed(plane.endpoints, "e")
    assert set(live.current().endpoints) == {"main", "e"}
    deployed(plane.endpoints, "e", "draining")
    assert set(live.current().endpoints) == {"main"}


async def test_the_package_of_a_provider_is_imported_beside_the_loop(
    made: Pool, monkeypatch: pytest.MonkeyPatch
) -> None:
    imported, let = threading.Event(), threading.Event()

    def load(provider: str) -> None:
        assert (provider, made.tellers.opened) == ("told", [])
        imported.set()
        assert let.wait(10), "the loop stands still"

    monkeypatch.setattr(pooling, "load_provider", load)
    answering = asyncio.create_task(made.pool.provider(made.deploy()).embed(CALL))
    await until(imported.is_set, what="it is being imported")
    let.set()
    await answering
    assert len(made.tellers.opened) == 1


async def test_one_that_breaks_or_hangs_when_it_is_warmed_up_keeps_no_other_cold(made: Pool) -> None:
    broken, hangs, good = (
        made.deploy(name, owner=owner) for name, owner in (("broken", "acme"), ("hangs", "other"), ("good", "acme"))
    )
    for endpoint in (broken, hangs, good):
        await made.pool.provider(endpoint).embed(CALL)
    providers = {t.endpoint.name: t for t in made.tellers.opened}
    providers["broken"].faults["warm_up"] = RuntimeError("no")
    providers["hangs"].gate.clear()
    warm: list[str] = []

    async def warmed(what: str) -> None:
        warm.append(what)

    providers["good"]._do = warmed  # type: ignore[method-assign]
    made.pool.open()
    warming = asyncio.create_task(made.pool.warm_up())
    await until(lambda: warm == ["warm_up"], what="the good one is warmed up", timeout=2)
    providers["hangs"].gate.set()
    await warming


async def test_a_deployed_endpoint_has_the_list_of_models_of_what_it_opens_or_none(made: Pool) -> None:
    endpoint = made.deploy()
    place = made.pool.provider(endpoint)
    assert isinstance(place, ListsModels)
    assert await place.list_models(1.0) is None
    listing = Listing([ListedModel("embed-1")])

    async def listed(timeout: float) -> Listing:
        return listing

    made.tellers.last.list_models = listed  # type: ignore[attr-defined]
    assert await place.list_models(1.0) == listing
