"""Quotas by the management API: what is refused, and what is written."""

from __future__ import annotations

import json
from typing import Any, cast

import pytest

from domain.events import AgentRegistered, Preferences, QuotaSet
from domain.quotas import QuotaKey
from tests.support.api import ApiSite
from tests.unit.wire.fake_service import ADMIN_KEY, KEY, OPERATOR_KEY

PATH = "/api/v1/quotas"
GOOD: dict[str, Any] = {"unit": "tokens", "limit": 1000}


async def test_a_quota_is_set_changed_and_removed(site: ApiSite) -> None:
    key = QuotaKey("tenant", "", "tokens", "month")
    made = await site.ask("PUT", PATH, ADMIN_KEY, GOOD)
    assert made.json() == {
        "scope": "tenant", "subject": None, "unit": "tokens", "window": "month", "limit": 1000, "hard": True,
    }  # fmt: skip
    assert site.plane.quotas.of("acme")[key].limit == 1000
    await site.ask("PUT", PATH, ADMIN_KEY, GOOD | {"limit": 7, "hard": False})
    assert (site.plane.quotas.of("acme")[key].limit, site.plane.quotas.of("acme")[key].hard) == (7, False)
    head = await site.log.head()
    assert (await site.ask("PUT", PATH, ADMIN_KEY, GOOD | {"limit": 7, "hard": False})).status_code == 200
    assert await site.log.head() == head, "what is so already is written nowhere"
    gone = await site.ask("DELETE", PATH, ADMIN_KEY, unit="tokens")
    assert (gone.status_code, gone.content, site.plane.quotas.of("acme")) == (204, b"", {})
    assert site.plane.quotas.of("other") == {}


@pytest.mark.parametrize(
    ("wrong", "field"),
    [
        ({"limit": -1}, "limit"),
        ({"limit": 10**18 + 1}, "limit"),
        ({"limit": 2.5}, "limit"),
        ({"limit": 1e400}, "limit"),
        ({"limit": "many"}, "limit"),
        ({"limit": None}, "limit"),
        ({"unit": "token"}, "unit"),
        ({"window": "week"}, "window"),
        ({"scope": "planet"}, "scope"),
        ({"scope": "model", "subject": "no such model"}, "subject"),
        ({"scope": "agent"}, "subject"),
        ({"subject": "somebody"}, "subject"),
        ({"hard": "yes"}, "hard"),
        ({"soft": True}, "soft"),
    ],
)
async def test_what_cannot_be_is_refused_with_the_field_named(site: ApiSite, wrong: dict[str, Any], field: str) -> None:
    content = json.dumps(GOOD | wrong).replace("Infinity", "1e400")
    answer = await site.http.put(PATH, content=content, headers={"authorization": f"Bearer {ADMIN_KEY}"})
    assert answer.status_code == 400, answer.text
    assert answer.json()["error"]["details"]["field"] in (field, "body")
    assert site.plane.quotas.of("acme") == {}


async def test_removing_without_saying_what_is_refused(site: ApiSite) -> None:
    answer = await site.ask("DELETE", PATH, ADMIN_KEY)
    assert (answer.status_code, answer.json()["error"]["details"]["field"]) == (400, "unit")


async def test_nobody_waits_for_the_budgets_of_agents_that_nobody_asked_about(
    site: ApiSite, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever may register agents may state ten thousand budgets: no answer takes as long as they are many."""
    for number in range(30):
        name = f"a{number:02}"
        stated = AgentRegistered(name, Preferences(monthly_budget_nano_usd=10**12))
        await site.given("acme", f"agent/acme/{name}", stated)
    await site.given("acme", "tenant/acme", QuotaSet(scope="tenant", unit="tokens", window="day", limit=10**9))
    views = cast("Any", site.service.reads).views
    looked_at: list[str] = []
    fetch = views.fetch

    async def recorded(query: str, tenant: str, scopes: list[str], subjects: list[str], *more: Any) -> Any:
        looked_at.extend(subjects)
        return await fetch(query, tenant, scopes, subjects, *more)

    monkeypatch.setattr(views, "fetch", recorded)

    async def looks(*asked: Any, **query: Any) -> list[str]:
        looked_at.clear()
        assert (await site.ask(*asked, **query)).status_code in (200, 503)  # a budget, and no price that is known
        return list(looked_at)

    page = await looks("GET", "/api/v1/quotas", ADMIN_KEY, limit=5, page=2)
    assert page == [f"a{number:02}" for number in range(5, 10)]
    assert (await site.ask("GET", "/api/v1/quotas", ADMIN_KEY, limit=5)).json()["pagination"]["total"] == 31
    assert await looks("GET", "/api/v1/tenant-models", ADMIN_KEY) == [""]
    assert await looks("POST", "/api/v1/embedding-models/select", KEY, {"agent_id": "a07"}) == ["a07", ""]


async def test_what_an_operator_has_set_the_tenant_neither_raises_nor_removes(site: ApiSite) -> None:
    await site.ask("PUT", PATH, ADMIN_KEY, GOOD)
    assert (await site.ask("PUT", PATH, OPERATOR_KEY, GOOD, tenant="acme")).status_code == 200, (
        "it is the operators' now"
    )
    for answer in (
        await site.ask("PUT", PATH, ADMIN_KEY, GOOD | {"limit": 10**9}),
        await site.ask("PUT", PATH, ADMIN_KEY, GOOD | {"hard": False}),
        await site.ask("DELETE", PATH, ADMIN_KEY, unit="tokens"),
    ):
        assert (answer.status_code, answer.json()["error"]["code"]) == (403, "forbidden")
    assert (await site.ask("PUT", PATH, ADMIN_KEY, GOOD | {"window": "day", "limit": 5})).status_code == 200, (
        "beside it"
    )
    assert (await site.ask("DELETE", PATH, OPERATOR_KEY, tenant="acme", unit="tokens")).status_code == 204
    assert (await site.ask("PUT", PATH, ADMIN_KEY, GOOD | {"limit": 10**9})).status_code == 200
