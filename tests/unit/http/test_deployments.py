"""Deployments: every stage of putting an endpoint to work, what each failure gives back, and who may do what."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from domain.catalogue import Endpoint
from domain.errors import GatewayError
from domain.events import (
    CredentialSet,
    DeploymentChanged,
    EndpointSpec,
    ModelRegistered,
    ModelSpec,
    ModelStateChanged,
    OfferingSpec,
)
from domain.ports.provider import ProviderError, ProviderFault
from gateway.catalogue.live import LiveCatalogue
from gateway.endpoints import deployments as runner
from gateway.endpoints import pool as pooling
from tests.support.api import ApiSite
from tests.support.endpoints import CALL, Tellers
from tests.unit.wire.fake_service import ADMIN_KEY, KEY, OPERATOR_KEY

DEPLOY = "/api/v1/models/m/deploy"
ALL = "/api/v1/deployments"
SPEC = ModelSpec(version="1", dimensions=4, max_tokens=100, tokenizer=None, unit=False, rank=1)
BODY: dict[str, Any] = {"name": "e", "provider": "told"}


@pytest.fixture(autouse=True)
def fast(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (runner, pooling):
        monkeypatch.setattr(module, "POLL_SECONDS", 0.001)
    monkeypatch.setattr(runner, "RETRY_SECONDS", 0.001)


@pytest.fixture
def tellers(monkeypatch: pytest.MonkeyPatch) -> Tellers:
    return Tellers().install(monkeypatch, options=frozenset({"any", "profile"}))


@pytest_asyncio.fixture
async def stocked(site: ApiSite, tellers: Tellers) -> AsyncIterator[ApiSite]:
    """A site with model m at the provider `told`, and credentials of acme's, other's and the installation's."""
    offerings = [OfferingSpec(p, "m-theirs", 16, 1000) for p in ("told", "openai", "azure", "local")]
    await site.given("_system", "model/m", ModelRegistered("m", SPEC, offerings, state="available"))
    for tenant in ("acme", "other", "_system"):
        await site.given(tenant, f"tenant/{tenant}", CredentialSet("mine", "told", 1))
        site.secrets.kept[tenant, "mine", 1] = f"secret of {tenant}"
    yield site
    await site.service.deployments.close()
    await site.pool.close()
    assert tellers.open_now == []


async def deploy(
    site: ApiSite, key: str = OPERATOR_KEY, wait: int = 10, tenant: str | None = None, **more: Any
) -> tuple[int, dict[str, Any]]:
    query = {"wait": str(wait), **({} if tenant is None else {"tenant": tenant})}
    answer = await site.ask("POST", DEPLOY, key, {**BODY, **more}, **query)
    return answer.status_code, answer.json()


async def states(site: ApiSite, endpoint: str = "e") -> list[str]:
    stored = await site.log.read(0, 1000)
    return [
        d.state
        for d in (site_data(e) for e in stored if e.type == DeploymentChanged.TYPE)
        if d.endpoint == endpoint
    ]  # fmt: skip


def site_data(event: Any) -> DeploymentChanged:
    from domain.decoding import decode_data

    data = decode_data(event.type, event.data, event.schema_version)
    assert isinstance(data, DeploymentChanged)
    return data


async def settle(site: ApiSite, endpoint: str = "e") -> str:
    found = site.plane.endpoints.deployments[endpoint]
    return (await site.service.deployments.settled(found, 10)).state


async def test_an_endpoint_is_put_to_work_in_stages_and_joins_the_pool(stocked: ApiSite, tellers: Tellers) -> None:
    attested: list[tuple[Endpoint, str]] = []

    async def attest(endpoint: Endpoint, model: str) -> bool:
        assert stocked.pool.endpoints() == (), "nobody is sent there yet"
        await stocked.pool.provider(endpoint).embed(CALL)
        attested.append((endpoint, model))
        return True

    stocked.attest = attest
    status, made = await deploy(stocked, max_concurrency=3, options={"any": "thing"})
    [endpoint] = stocked.pool.endpoints()
    assert (status, made["state"], made["endpoint"], made["tenant"]) == (201, "ready", "e", None)
    assert await states(stocked) == ["preparing", "allocating", "loading", "ready"]
    assert attested == [(endpoint, "m")]
    assert (endpoint.models, endpoint.max_concurrency, endpoint.options) == ({"m": ""}, 3, {"any": "thing"})
    assert (tellers.last.calls, tellers.open_now) == (1, [tellers.last]), "what was loaded serves"
    shown = await stocked.ask("GET", made["status_url"], OPERATOR_KEY)
    listed = await stocked.ask("GET", "/api/v1/models/m/deployments", OPERATOR_KEY)
    assert [shown.json()] == listed.json()["deployments"] == [made]


@pytest.mark.parametrize("embeds", [True, False])
async def test_a_key_that_may_embed_and_nothing_else_is_good_enough(
    stocked: ApiSite, tellers: Tellers, embeds: bool
) -> None:
    async def attest(endpoint: Endpoint, model: str) -> bool:
        if not embeds:
            raise ProviderError(ProviderFault.UNATTESTED, "its probes were not answered")
        return True

    stocked.attest = attest
    tellers.faults["check"] = ProviderError(ProviderFault.AUTHENTICATION, "403 from there", status=403)
    status, made = await deploy(stocked)
    assert status == (201 if embeds else 502)
    assert embeds or "403 from there" in made["error"]["message"], "why it does not embed is told"


async def test_without_waiting_the_answer_says_where_to_look(stocked: ApiSite) -> None:
    answer = await stocked.ask("POST", DEPLOY, OPERATOR_KEY, BODY)
    assert (answer.status_code, answer.json()["state"]) == (202, "preparing")
    assert answer.headers["location"] == answer.json()["status_url"] == f"{ALL}/{answer.json()['id']}"
    assert await settle(stocked) == "ready"


async def test_the_same_again_changes_nothing_and_another_of_the_name_is_refused(stocked: ApiSite) -> None:
    _, first = await deploy(stocked)
    head = await stocked.log.head()
    assert await deploy(stocked) == (200, first)
    status, refused = await deploy(stocked, weight=5)
    assert (status, refused["error"]["details"]) == (409, {"field": "name", "state": "ready"})
    assert await stocked.log.head() == head
    gone = await stocked.ask("DELETE", f"{ALL}/e", OPERATOR_KEY, wait="10")
    assert (gone.status_code, gone.json()["state"]) == (200, "stopped")
    status, anew = await deploy(stocked, weight=5)
    assert (status, anew["spec"]["weight"], anew["id"] != first["id"]) == (201, 5, True)


Fault = tuple[str, str, str, list[str]]
FAILURES: dict[str, Fault] = {
    "the provider is not installed": ("prepare", "provider_error", "package", ["preparing", "failed"]),
    "the credential is gone": ("prepare", "provider_error", "is gone", ["preparing", "failed"]),
    "there is no room": ("allocate", "resource_constraint", "max_provider_calls", ["preparing", "allocating", "failed"]),
    "warm-up fails": ("load", "provider_unavailable", "too slow", ["preparing", "allocating", "loading", "failed"]),
    "the provider refuses our key": ("load", "provider_error", "401", ["preparing", "allocating", "loading", "failed"]),
    "warm-up breaks": ("load", "internal", "RuntimeError", ["preparing", "allocating", "loading", "failed"]),
    "it hangs": ("load", "provider_unavailable", "not ready", ["preparing", "allocating", "loading", "failed"]),
    "it drifted": ("load", "provider_error", "not those", ["preparing", "allocating", "loading", "failed"]),
    "its probes are refused": ("load", "quota_exceeded", "quota", ["preparing", "allocating", "loading", "failed"]),
    "the model went": ("register", "resource_constraint", "taken from", ["preparing", "allocating", "loading", "failed"]),
}  # fmt: skip


@pytest.mark.parametrize("what", FAILURES)
async def test_each_stages_failure_is_told_and_gives_back_what_it_took(
    stocked: ApiSite, tellers: Tellers, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    stage, code, told, path = FAILURES[what]

    async def attest(endpoint: Endpoint, model: str) -> bool:
        await stocked.pool.provider(endpoint).embed(CALL)
        if what == "it drifted":
            raise ProviderError(ProviderFault.DRIFTED, "the vectors are not those of m")
        if what == "its probes are refused":
            raise GatewayError("quota_exceeded", "the quota is used up")
        if what == "the model went":
            gone = ModelStateChanged(model="m", state="removed", previous="available")
            await stocked.given("_system", "model/m", gone)
        return False

    stocked.attest = attest
    match what:
        case "the provider is not installed":
            tellers.refuse = ModuleNotFoundError("No module named 'sdk'", name="sdk")
        case "the credential is gone":
            stocked.secrets.kept.clear()
        case "there is no room":
            stocked.max_calls = 4
        case "warm-up fails":
            tellers.faults["warm_up"] = ProviderError(ProviderFault.TIMEOUT, "too slow")
        case "warm-up breaks":
            tellers.faults["warm_up"] = RuntimeError("secret of _system")
        case "the provider refuses our key":
            tellers.faults["check"] = ProviderError(ProviderFault.AUTHENTICATION, "401 from there", status=401)
        case "it hangs":
            tellers.shut = True
            monkeypatch.setattr(runner, "LOAD_SECONDS", 0.01)
    status, refused = await deploy(stocked, credential="mine")
    error = refused["error"]
    assert (error["code"], error["details"]["stage"], status) == (code, stage, GatewayError(code, "").status)
    assert told in error["message"]
    assert "secret of _system" not in str(refused) + str([e.data for e in await stocked.log.read(0, 1000)])
    assert await states(stocked) == path
    found = stocked.plane.endpoints.deployments["e"]
    assert (found.claim, stocked.pool.endpoints(), tellers.open_now) == (None, (), [])
    tellers.refuse, tellers.shut, stocked.max_calls = None, False, 8
    tellers.faults.clear()
    what = "all is well"
    if stage != "register":
        stocked.secrets.kept["_system", "mine", 1] = "back"
        monkeypatch.setattr(runner, "LOAD_SECONDS", 10.0)
        assert (await deploy(stocked, credential="mine"))[0] == 201, "the name and its share are free again"


async def test_the_control_for_releases_one_that_serves_holds_its_share(stocked: ApiSite) -> None:
    stocked.max_calls = 8
    assert (await deploy(stocked))[0] == 201
    status, refused = await deploy(stocked, name="more", max_concurrency=1)
    assert (status, refused["error"]["code"]) == (409, "resource_constraint")
    await stocked.ask("DELETE", f"{ALL}/e", OPERATOR_KEY, wait="10")
    assert (await deploy(stocked, name="more", max_concurrency=8))[0] == 201


async def test_of_two_gateways_one_takes_the_last_share(stocked: ApiSite) -> None:
    stocked.live |= {"gateway-2"}
    stocked.max_calls = 10
    second = stocked.deployments("gateway-2")
    control = stocked.service.control

    async def by(runner_: Any, name: str) -> str:
        spec = EndpointSpec("told", {"m": ""}, max_concurrency=6)
        found, _ = await runner_.deploy(
            lambda stream, decide: control.run(decide, stream=stream),
            name, "m", spec, owner=None, operator=True, actor="test",
        )  # fmt: skip
        return str((await runner_.settled(found, 10)).state)

    outcomes = await asyncio.gather(by(stocked.service.deployments, "a"), by(second, "b"), by(second, "c"))
    await second.close()
    assert sorted(outcomes) == ["failed", "failed", "ready"]
    reasons = {d.code for d in stocked.plane.endpoints.deployments.values() if d.state == "failed"}
    assert reasons == {"resource_constraint"}


async def test_the_local_model_is_refused_where_there_is_no_memory_for_it(stocked: ApiSite) -> None:
    stocked.service.deployments._memory = lambda: 1024
    status, refused = await deploy(stocked, provider="local")
    assert (status, refused["error"]["details"]["stage"]) == (409, "allocate")
    assert "memory" in refused["error"]["message"]


async def test_undeploying_lets_what_is_under_way_end(stocked: ApiSite, tellers: Tellers) -> None:
    await deploy(stocked)
    [endpoint] = stocked.pool.endpoints()
    tellers.last.gate.clear()
    call = asyncio.create_task(stocked.pool.provider(endpoint).embed(CALL))
    await tellers.last.called.wait()
    asked = await stocked.ask("DELETE", f"{ALL}/e", OPERATOR_KEY)
    assert (asked.status_code, asked.json()["state"], stocked.pool.endpoints()) == (202, "draining", ())
    status, refused = await deploy(stocked)
    assert (status, refused["error"]["details"]["state"]) == (409, "draining")
    assert not tellers.last.closed
    tellers.last.gate.set()
    await call
    assert await settle(stocked) == "stopped"
    assert tellers.open_now == []
    again = await stocked.ask("DELETE", f"{ALL}/e", OPERATOR_KEY)
    assert (again.status_code, again.json()["state"]) == (200, "stopped")


async def test_a_deployment_that_is_called_off_is_stopped_and_gives_back_what_it_took(
    stocked: ApiSite, tellers: Tellers
) -> None:
    tellers.shut = True
    await deploy(stocked, wait=0)
    while stocked.plane.endpoints.deployments["e"].state != "loading":
        await asyncio.sleep(0)
    gone = await stocked.ask("DELETE", f"{ALL}/e", OPERATOR_KEY)
    assert (gone.status_code, gone.json()["state"]) == (200, "stopped")
    while tellers.open_now:
        await asyncio.sleep(0)
    assert (await states(stocked))[-1] == "stopped"
    assert stocked.plane.endpoints.deployments["e"].claim is None


@pytest.mark.parametrize("state", ["preparing", "allocating", "loading", "draining"])
async def test_what_a_dead_gateway_was_at_work_on_is_ended_by_another(stocked: ApiSite, state: str) -> None:
    spec = EndpointSpec("told", {"m": ""}, max_concurrency=90)
    way = ["preparing", "allocating", "loading", "ready", "draining"]
    for step in way[: way.index(state) + 1]:
        given = spec if step == "preparing" else None
        event = DeploymentChanged("e", "d1", "m", step, 1, spec=given, instance="gateway-0", actor="x")
        await stocked.given("_system", "endpoint/e", event)
    stocked.live.add("gateway-0")
    assert await stocked.service.deployments.reap() == 0, "one that lives is let be"
    stocked.live.discard("gateway-0")
    assert await stocked.service.deployments.reap() == 1
    assert await stocked.service.deployments.reap() == 0
    found = stocked.plane.endpoints.deployments["e"]
    stages = {"preparing": "prepare", "allocating": "allocate", "loading": "load"}
    assert (found.state, found.stage, found.claim) == (
        ("stopped", None, None) if state == "draining" else ("failed", stages[state], None)
    )
    assert (await deploy(stocked, max_concurrency=90))[0] == 201


async def test_a_gateway_that_was_taken_for_dead_finds_its_deployment_ended(stocked: ApiSite, tellers: Tellers) -> None:
    tellers.shut = True
    await deploy(stocked, wait=0)
    while len(tellers.opened) < 2:  # once to see whether it can be, once to be loaded
        await asyncio.sleep(0)
    stocked.live = {"gateway-2"}
    other = stocked.deployments("gateway-2")
    assert await other.reap() == 1
    tellers.last.gate.set()
    await asyncio.gather(*stocked.service.deployments._tasks.values())
    while tellers.open_now:
        await asyncio.sleep(0)
    assert (await states(stocked))[-1] == "failed"
    assert stocked.pool.endpoints() == ()


async def test_a_tenants_endpoint_serves_it_alone_with_its_own_credential(stocked: ApiSite, tellers: Tellers) -> None:
    status, made = await deploy(stocked, ADMIN_KEY, credential="mine")
    [endpoint] = stocked.pool.endpoints()
    assert (status, made["endpoint"], made["tenant"]) == (201, "acme:e", "acme")
    assert (endpoint.tenant, endpoint.credential, tellers.last.key) == ("acme", "mine", "secret of acme")
    assert (await deploy(stocked, name="e"))[0] == 201, "names of tenants take none of others"
    assert [d["endpoint"] for d in (await stocked.ask("GET", ALL, ADMIN_KEY)).json()["deployments"]] == ["acme:e"]
    for place in ("e", "acme:e", made["id"]):
        assert (await stocked.ask("GET", f"{ALL}/{place}", ADMIN_KEY)).json()["endpoint"] == "acme:e"
    theirs = stocked.plane.endpoints.deployments["e"].id
    assert (await stocked.ask("DELETE", f"{ALL}/{theirs}", ADMIN_KEY)).status_code == 404
    assert (await stocked.ask("DELETE", f"{ALL}/e", ADMIN_KEY, wait="10")).json()["endpoint"] == "acme:e"
    assert (await stocked.ask("POST", DEPLOY, KEY, BODY)).status_code == 403
    events = [e for e in await stocked.log.read(0, 1000) if e.stream == "endpoint/acme:e"]
    assert {e.tenant for e in events} == {"acme"}


REFUSED: dict[str, dict[str, Any]] = {
    "api_key_env": {"api_key_env": "OPENAI_API_KEY", "credential": None},
    "credential": {"credential": None},
    "base_url": {"base_url": "http://169.254.169.254/latest"},
    "options": {"options": {"profile": "default"}},
    "provider": {"provider": "local", "credential": None},
    "max_concurrency": {"max_concurrency": 65},
}


@pytest.mark.parametrize("field", REFUSED)
async def test_what_would_lead_to_the_operators_keys_or_elsewhere_is_for_operators(
    stocked: ApiSite, field: str, tellers: Tellers
) -> None:
    more = {"credential": "mine", **REFUSED[field]}
    status, refused = await deploy(stocked, ADMIN_KEY, **more)
    assert (status, refused["error"]["details"]["field"]) == (403, field)
    assert tellers.opened == []
    assert await states(stocked, "acme:e") == []


@pytest.mark.parametrize(
    ("url", "status"),
    [
        ("https://acme-embeddings.openai.azure.com", 502),
        ("https://acme.openai.azure.com.evil.example", 403),
        ("https://evil.example/x.openai.azure.com", 403),
        ("http://acme.openai.azure.com", 403),
        ("https://user@acme.openai.azure.com", 403),
        ("https://10.0.0.1", 403),
    ],
)
async def test_a_tenants_azure_resource_is_at_azure(stocked: ApiSite, url: str, status: int) -> None:
    await stocked.given("acme", "tenant/acme", CredentialSet("azure", "azure", 1))
    assert (await deploy(stocked, ADMIN_KEY, provider="azure", credential="azure", base_url=url))[0] == status


@pytest.mark.parametrize("region", ["us-east-1", "evil.example/", "x@evil", "../..", "a\nb"])
async def test_a_tenants_option_leads_to_no_other_host(stocked: ApiSite, region: str) -> None:
    await stocked.given("acme", "tenant/acme", CredentialSet("ai", "openai", 1))
    stocked.secrets.kept["acme", "ai", 1] = "k"
    status, _ = await deploy(
        stocked, ADMIN_KEY, wait=0, provider="openai", credential="ai", options={"project": region}
    )
    assert status == (202 if region == "us-east-1" else 403)


async def test_an_operator_deploys_for_a_tenant_too_and_with_no_key_of_the_environment_then(stocked: ApiSite) -> None:
    status, made = await deploy(stocked, tenant="other", credential="mine", options={"profile": "x"})
    assert (status, made["endpoint"], made["tenant"]) == (201, "other:e", "other")
    status, refused = await deploy(stocked, tenant="other", api_key_env="KEY")
    assert (status, refused["error"]["details"]["field"]) == (400, "api_key_env")
    assert (await deploy(stocked, tenant="nobody"))[0] == 404


WRONG: list[tuple[dict[str, Any], int, str]] = [
    ({"name": "a b"}, 400, "name"),
    ({"name": "other:e"}, 400, "name"),
    ({"provider": "cohere"}, 400, "provider"),
    ({"credential": "nothing"}, 400, "credential"),
    ({"provider": "openai", "credential": "mine"}, 400, "credential"),
    ({"credential": "mine", "api_key_env": "KEY"}, 400, "api_key_env"),
    ({"api_key_env": "sk-a-key-itself"}, 400, "api_key_env"),
    ({"base_url": "file:///etc/passwd"}, 400, "base_url"),
    ({"max_concurrency": 0}, 400, "max_concurrency"),
    ({"timeout_ms": 10**9}, 400, "timeout_ms"),
    ({"weight": -1}, 400, "weight"),
    ({"provider_model": "../../x"}, 400, "models"),
    ({"models": {"none": ""}}, 404, "model_id"),
]


@pytest.mark.parametrize(("more", "status", "field"), WRONG)
async def test_what_is_wrong_is_told_before_anything_is_written(
    stocked: ApiSite, more: dict[str, Any], status: int, field: str
) -> None:
    head = await stocked.log.head()
    got, refused = await deploy(stocked, **more)
    assert (got, refused["error"]["details"]["field"]) == (status, field)
    assert await stocked.log.head() == head


async def test_a_name_of_the_settings_is_taken(stocked: ApiSite) -> None:
    stocked.pool.configured = (Endpoint("e", "told", {"m": ""}),)
    status, refused = await deploy(stocked)
    assert (status, "settings" in refused["error"]["message"]) == (409, True)


async def test_a_tenant_that_was_shredded_has_no_endpoint_any_more(stocked: ApiSite, tellers: Tellers) -> None:
    from domain.events import TenantShredded

    await deploy(stocked, ADMIN_KEY, credential="mine")
    await stocked.given("acme", "tenant/acme", TenantShredded("acme"))
    stocked.pool.sync()
    while tellers.open_now:
        await asyncio.sleep(0)
    assert (stocked.pool.endpoints(), stocked.plane.endpoints.deployments["acme:e"].state) == ((), "stopped")


async def test_the_call_that_the_page_of_endpoints_shows_deploys_one(
    stocked: ApiSite, monkeypatch: pytest.MonkeyPatch
) -> None:
    page = (Path(__file__).parents[3] / "docs" / "endpoints.md").read_text()
    [shown] = re.findall(
        r'^curl -X (\w+) "\$URL/api/v1/models/([^/]+)/deploy\?wait=(\d+)" .*? -d \'(.*?)\'$', page, re.M | re.S
    )
    method, model, wait, body = shown
    Tellers().install(monkeypatch, name="openai")
    offering = OfferingSpec("openai", model, 16, 1000)
    await stocked.given("_system", f"model/{model}", ModelRegistered(model, SPEC, [offering], state="available"))
    await stocked.given("acme", "tenant/acme", CredentialSet("my-openai", "openai", 1))
    stocked.secrets.kept["acme", "my-openai", 1] = "a secret"
    answer = await stocked.ask(method, f"/api/v1/models/{model}/deploy", ADMIN_KEY, json.loads(body), wait=wait)
    assert (answer.status_code, answer.json()["state"], answer.json()["endpoint"]) == (201, "ready", "acme:mine")


async def test_what_a_tenant_has_for_itself_is_shown_with_the_catalogue_to_it_and_to_operators(
    stocked: ApiSite, monkeypatch: pytest.MonkeyPatch
) -> None:
    await deploy(stocked, ADMIN_KEY, credential="mine")
    await deploy(stocked, tenant="other", credential="mine", name="theirs")
    await deploy(stocked, name="for-all")
    monkeypatch.setattr(stocked.service, "models", LiveCatalogue(stocked.plane, ()).current)
    for key, listed, serving in (
        (ADMIN_KEY, ["acme:e", "for-all"], ["acme:e", "for-all"]),
        (OPERATOR_KEY, ["acme:e", "for-all", "other:theirs"], ["for-all"]),
    ):
        answer = await stocked.ask("GET", "/api/v1/embedding-models/providers", key)
        [told] = [p for p in answer.json()["providers"] if p["name"] == "told"]
        assert told["endpoints"] == listed
        assert (await stocked.ask("GET", "/api/v1/models/m", key)).json()["endpoints"] == serving
