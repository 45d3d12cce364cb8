"""What another tenant has and does changes nothing of what a tenant is told: two installations, which differ in the other tenant alone,
answer every route alike, whatever names of the other's are in path, parameters and body.
"""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from typing import Any

import pytest

from domain.catalogue import Endpoint
from domain.events import (
    AgentRegistered,
    BreakerChanged,
    CollectionCreated,
    CredentialSet,
    DeploymentChanged,
    EndpointSpec,
    EventData,
    KeyCreated,
    KeyRevoked,
    Preferences,
    PriceSet,
    QuotaSet,
    RateLimitSet,
    TenantConfigured,
    TenantModelConfigured,
)
from domain.prices import UNKNOWN
from domain.tenancy import Principal
from gateway.http.api.route import ApiRoute
from gateway.http.api.table import ROUTES
from tests.support.api import ApiSite, api_site
from tests.support.planes import registered

MODEL, AGENT, PRICE, KEY, ENDPOINT = "m1", "their-agent", "their-price", "00000000deadbeef", "their-endpoint"
CREDENTIAL, DEPLOYMENT, COLLECTION = "their-credential", "their-deployment", "their-collection"
SCOPES = ("agent", "billing", "admin")
VIEWS = {"threads", "cost", "usage"}
"""What reads these needs a database: its statements take the tenant, see tests/integration."""
ASKED = [
    route
    for route in ROUTES
    if route.scopes and route.tag not in ("alerts", "webhooks") and (route.view or "") not in VIEWS
]
NAMES = {
    "agent": AGENT,
    "model": MODEL,
    "price": PRICE,
    "key": KEY,
    "endpoint": ENDPOINT,
    "credential": CREDENTIAL,
    "deployment": DEPLOYMENT,
    "collection": COLLECTION,
}
QUERY = {"model": MODEL, "for_tenant": "other", "scope": "agent", "subject": AGENT, "unit": "tokens"}
BODIES: dict[str, dict[str, Any]] = {
    "registerAgent": {"agent_id": AGENT, "preferences": {}},
    "changeAgent": {"preferences": {}},
    "createKey": {"scopes": ["admin"], "name": "n"},
    "setCredential": {"provider": "p", "secret": "s"},
    "deployModel": {"name": ENDPOINT, "provider": "p", "credential": CREDENTIAL},
    "createCollection": {"name": COLLECTION, "model": MODEL},
    "deleteCollectionRows": {"ids": ["theirs"]},
    "searchCollection": {"collection": COLLECTION, "vector": [1.0] * 8},
    "selectModel": {"agent_id": AGENT, "requested_model": MODEL},
    "setQuota": {"scope": "agent", "subject": AGENT, "unit": "tokens", "limit": 1},
    "setRateLimit": {"scope": "key", "subject": KEY, "requests_per_minute": 1},
    "configureTenantModel": {"model_id": MODEL, "priority": 1},
    "changeTenantModel": {"priority": 1},
    "changeTenantSettings": {"failover": "any"},
}
THEIRS: list[tuple[str, str, EventData]] = [
    ("other", "tenant/other", TenantConfigured(tier="pro", failover="none")),
    ("other", "tenant/other", TenantModelConfigured(MODEL, default=True, priority=77)),
    ("other", f"agent/other/{AGENT}", AgentRegistered(AGENT, Preferences(models=[MODEL], monthly_budget_nano_usd=1))),
    ("other", "tenant/other", KeyCreated(KEY, "0" * 64, ["admin"], tenant="other", name="theirs")),
    ("other", "tenant/other", KeyRevoked(KEY)),
    ("other", "tenant/other", QuotaSet(scope="model", subject=MODEL, unit="tokens", window="month", limit=0)),
    ("other", "tenant/other", RateLimitSet(scope="agent", subject=AGENT, requests_per_minute=1)),
    ("other", "tenant/other", CollectionCreated(COLLECTION, "f" * 32, f"{MODEL}@1/8/raw")),
    ("other", "tenant/other", CredentialSet(CREDENTIAL, "p", 1)),
    (
        "other",
        f"endpoint/{ENDPOINT}",
        DeploymentChanged(ENDPOINT, DEPLOYMENT, MODEL, "ready", 1, EndpointSpec("p", {MODEL: ""}), owner="other"),
    ),
    ("other", f"endpoint/{ENDPOINT}", BreakerChanged(ENDPOINT, "open", "closed", "failures", 1, 5, until=2**51)),
    (
        "_system",
        "prices",
        PriceSet(PRICE, MODEL, "p", effective_from=1, unit_pico_usd=1, for_tenant="other", source="a contract"),
    ),
]


async def prepared(site: ApiSite) -> ApiSite:
    model = registered(MODEL)
    await site.given("_system", f"model/{MODEL}", model)
    await site.given("_system", "prices", PriceSet("list", MODEL, "p", effective_from=0, unit_pico_usd=1000))
    catalogue = site.plane.models.catalogue(
        lambda m, p: site.plane.prices.list_price(m, p, 1e9) or UNKNOWN, [Endpoint("e", "p", {MODEL: ""})]
    )
    site.service._models = catalogue
    site.service.keys = {f"em_{scope}": Principal(f"key-{scope}", "acme", frozenset({scope})) for scope in SCOPES}
    return site


@pytest.fixture
async def sites() -> AsyncIterator[tuple[ApiSite, ApiSite]]:
    """One without and one with what the other tenant has."""
    async with AsyncExitStack() as stack:
        alone, crowded = [await prepared(await stack.enter_async_context(api_site())) for _ in range(2)]
        for event in THEIRS:
            await crowded.given(*event)
        yield alone, crowded


async def told(site: ApiSite, route: ApiRoute, scope: str, query: dict[str, str]) -> tuple[int, str]:
    """Status and body, without what is random or a time."""
    path = re.sub(r"{(\w+)(:\w+)?}", lambda name: NAMES[name[1]], route.path)
    body = None if route.body is None else BODIES[route.name]
    answer = await site.ask(route.method, path, f"em_{scope}", body, **query)
    assert answer.status_code < 500, answer.text
    text = re.sub(r'"trace":"\w+"|\d{4}-\d\d-\d\dT[\d:.]+Z', "", answer.text)
    if route.name in ("createKey", "listKeys"):
        text = re.sub(r'"(id|key)":"[^"]+"', "", text)
    return answer.status_code, text


@pytest.mark.parametrize("route", ASKED, ids=[route.name for route in ASKED])
async def test_a_tenant_is_told_the_same_whatever_another_has(sites: tuple[ApiSite, ApiSite], route: ApiRoute) -> None:
    alone, crowded = sites
    known = {parameter.name for parameter in route.parameters()}
    whole = {name: value for name, value in QUERY.items() if name in known}
    for query in (whole, {}, *({"tenant": tenant} for tenant in ("other", "nobody") if "tenant" in known)):
        for scope in SCOPES:
            assert await told(alone, route, scope, query) == await told(crowded, route, scope, query), (query, scope)


async def test_what_a_tenant_does_with_the_names_of_another_changes_nothing_there(
    sites: tuple[ApiSite, ApiSite],
) -> None:
    _, crowded = sites
    before = len(await crowded.log.read(0, 1000))
    for route in ASKED:
        if route.writes:
            for scope in SCOPES:
                await told(crowded, route, scope, {})
    written = (await crowded.log.read(0, 1000))[before:]
    assert {event.tenant for event in written} == {"acme"}
    assert len({event.type for event in written}) >= 5, "too little was tried"


async def test_a_wall_with_a_hole_would_be_found(sites: tuple[ApiSite, ApiSite]) -> None:
    """The control: to an operator the two installations differ."""
    alone, crowded = sites
    for site in sites:
        site.service.keys["em_admin"] = Principal("k", None, frozenset({"operator"}))
    differing = 0
    shown = [route for route in ASKED if not route.own]
    for route in shown:
        query = {"tenant": "other"} if route.tenanted else {}
        differing += await told(alone, route, "admin", query) != await told(crowded, route, "admin", query)
    assert differing > len(shown) // 2
