"""The management API of a tenant's models, of its agents, and of what would be chosen."""

from __future__ import annotations

from typing import Any

import pytest

from domain.catalogue import Catalogue, Endpoint
from domain.events import ModelRegistered, PriceSet, QuotaSet
from domain.prices import UNKNOWN
from gateway.decisions import decision_event
from tests.support.api import ApiSite
from tests.support.planes import registered
from tests.unit.wire.fake_service import ADMIN_KEY, BILLING_KEY, BOUND_KEY, KEY, OPERATOR_KEY, OTHER_KEY

MODELS, AGENTS, SELECT = "/api/v1/tenant-models", "/api/v1/agents", "/api/v1/embedding-models/select"


@pytest.fixture
async def three(site: ApiSite) -> ApiSite:
    """Models a, b and c, which an endpoint of p serves at 1000 pico-dollars a token."""
    given: list[ModelRegistered] = [registered("a", aliases=["first"]), registered("b"), registered("c")]
    for model in given:
        await site.given("_system", f"model/{model.model}", model)
        await site.given(
            "_system", "prices", PriceSet(f"p-{model.model}", model.model, "p", effective_from=0, unit_pico_usd=1000)
        )
    catalogue: Catalogue = site.plane.models.catalogue(
        lambda m, p: site.plane.prices.list_price(m, p, 1e9) or UNKNOWN,
        [Endpoint("e", "p", {m.model: "" for m in given})],
    )
    site.service._models = catalogue
    return site


def fields(answer: Any) -> list[str]:
    assert (answer.status_code, answer.json()["error"]["code"]) == (400, "invalid_config")
    return [found["field"] for found in answer.json()["error"]["details"]["fields"]]


# -- tenant models -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", [MODELS, "/tenant-models"])
async def test_a_model_is_added_shown_changed_and_removed(three: ApiSite, path: str) -> None:
    made = await three.ask("POST", path, ADMIN_KEY, {"model_id": "first", "monthly_quota": 1000, "priority": 7})
    assert made.status_code == 201
    assert "x-emberlog-position" in made.headers
    shown = (await three.ask("GET", f"{path}/a", ADMIN_KEY)).json()
    assert shown == made.json() == {
        "model_id": "a",
        "state": "enabled",
        "is_enabled": True,
        "is_default": False,
        "priority": 7,
        "fallback_models": [],
        "custom_settings": {},
        "monthly_token_limit": 1000,
        "daily_token_limit": None,
        "monthly_request_limit": None,
        "custom_cost_per_token_pico_usd": None,
        "custom_cost_per_character_pico_usd": None,
        "dimensions": 8,
        "minimum_tier": "free",
        "is_deprecated": False,
        "usable": True,
        "over_price_ceiling": False,
        "reason": None,
        "version": 3,
    }  # fmt: skip
    again = await three.ask("POST", path, ADMIN_KEY, {"model_id": "a", "is_enabled": False})
    assert (again.status_code, again.json()["state"], again.json()["priority"]) == (200, "disabled", 7)
    assert again.json()["reason"] == "it is disabled for the tenant, not enabled"
    changed = await three.ask("PUT", f"{path}/a", ADMIN_KEY, {"enabled": True, "monthly_token_limit": None})
    assert (changed.json()["state"], changed.json()["monthly_token_limit"]) == ("enabled", None)
    assert (await three.ask("DELETE", f"{path}/a", ADMIN_KEY)).status_code == 204
    assert (await three.ask("GET", f"{path}/a", ADMIN_KEY)).status_code == 404
    assert (await three.ask("DELETE", f"{path}/a", ADMIN_KEY)).status_code == 404


async def test_the_default_is_switched_by_one_write_and_not_taken_away(three: ApiSite) -> None:
    for name in "ab":
        await three.ask("POST", MODELS, ADMIN_KEY, {"model_id": name, "is_default": True})
    listed = (await three.ask("GET", MODELS, ADMIN_KEY)).json()
    assert [(m["model_id"], m["is_default"]) for m in listed["models"]] == [("a", False), ("b", True)]
    switched = await three.ask("POST", f"{MODELS}/a/set-default", ADMIN_KEY)
    assert (switched.status_code, switched.json()["is_default"]) == (200, True)
    for method, path, body in (
        ("DELETE", f"{MODELS}/a", None),
        ("PUT", f"{MODELS}/a", {"is_enabled": False}),
        ("PUT", f"{MODELS}/a", {"is_default": False}),
    ):
        refused = await three.ask(method, path, ADMIN_KEY, body)
        assert (refused.status_code, refused.json()["error"]["code"]) == (409, "resource_constraint")


async def test_a_race_is_refused_where_a_version_is_expected(three: ApiSite) -> None:
    version = (await three.ask("POST", MODELS, ADMIN_KEY, {"model_id": "a"})).json()["version"]
    await three.ask("PUT", f"{MODELS}/a", ADMIN_KEY, {"priority": 1})
    lost = await three.ask("PUT", f"{MODELS}/a", ADMIN_KEY, {"priority": 2}, expected_version=version)
    assert (lost.status_code, lost.json()["error"]["code"]) == (409, "version_conflict")
    assert (await three.ask("GET", f"{MODELS}/a", ADMIN_KEY)).json()["priority"] == 1


async def test_a_race_behind_a_price_is_refused_too(three: ApiSite) -> None:
    version = (await three.ask("POST", MODELS, ADMIN_KEY, {"model_id": "a"})).json()["version"]
    three.backing.before = [decision_event("acme", "tenant/acme", QuotaSet("tenant", "tokens", "day", 5))]
    body = {"priority": 2, "custom_cost_per_token_pico_usd": 7}
    lost = await three.ask("PUT", f"{MODELS}/a", OPERATOR_KEY, body, expected_version=version, tenant="acme")
    assert (lost.status_code, lost.json()["error"]["code"]) == (409, "version_conflict")
    assert (await three.ask("GET", f"{MODELS}/a", ADMIN_KEY)).json()["priority"] == 100


async def test_only_operators_set_prices(three: ApiSite) -> None:
    body = {"model_id": "a", "custom_cost_per_token_pico_usd": 7}
    assert (await three.ask("POST", MODELS, ADMIN_KEY, body)).status_code == 403
    made = await three.ask("POST", MODELS, OPERATOR_KEY, body, tenant="acme")
    assert (made.status_code, made.json()["custom_cost_per_token_pico_usd"]) == (201, 7)
    chosen = await three.ask("POST", SELECT, KEY, {"requested_model": "a", "token_estimate": 100})
    assert (chosen.json()["unit_pico_usd"], chosen.json()["estimated_cost_nano_usd"]) == (7, 1)


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ({"model_id": "a", "priority": -1}, ["priority"]),
        ({"model_id": "a", "priority": 10**30}, ["priority"]),
        ({"model_id": "a", "monthly_token_limit": -1, "daily_quota": 10**19}, ["monthly_token_limit", "daily_token_limit"]),
        ({"model_id": "a", "monthly_token_limit": 1, "monthly_quota": 2}, ["monthly_quota"]),
        ({"model_id": "a", "fallback_models": ["a"]}, ["fallback_models[0]"]),
        ({"model_id": "a", "colour": "red"}, ["colour"]),
        ({"model_id": "a", "monthly_token_limit": "many", "is_enabled": 3}, ["monthly_token_limit", "is_enabled"]),
        ({}, ["model_id"]),
    ],
)  # fmt: skip
async def test_what_is_wrong_is_named_and_nothing_changes(three: ApiSite, body: Any, expected: list[str]) -> None:
    before = three.plane.position
    assert sorted(fields(await three.ask("POST", MODELS, ADMIN_KEY, body))) == sorted(expected)
    assert three.plane.position == before


async def test_circular_fallbacks_are_refused(three: ApiSite) -> None:
    await three.ask("POST", MODELS, ADMIN_KEY, {"model_id": "a", "fallback_models": ["b"]})
    circle = await three.ask("POST", MODELS, ADMIN_KEY, {"model_id": "b", "fallback_models": ["a"]})
    assert fields(circle) == ["fallback_models"]


async def test_an_unknown_model_is_not_found(three: ApiSite) -> None:
    for method, path in (("POST", MODELS), ("PUT", f"{MODELS}/zebra")):
        body = {"model_id": "zebra"} if method == "POST" else {}
        assert (await three.ask(method, path, ADMIN_KEY, body)).status_code == 404


async def test_a_model_whose_quota_is_used_up_says_so_until_the_limit_is_raised(three: ApiSite) -> None:
    for body in ({"model_id": "a", "is_default": True, "daily_token_limit": 100}, {"model_id": "b"}):
        await three.ask("POST", MODELS, ADMIN_KEY, body)
    three.used["model", "a", "tokens"] = 100
    shown = (await three.ask("GET", f"{MODELS}/a", ADMIN_KEY)).json()
    assert (shown["state"], shown["is_default"], shown["is_enabled"]) == ("quota_exceeded", True, True)
    assert (shown["usable"], shown["reason"]) == (False, "a quota of it is used up")
    refused = (await three.ask("POST", SELECT, KEY, {"requested_model": "a"})).json()["error"]
    assert (refused["code"], refused["details"]["alternatives"]) == ("quota_exceeded", ["b"])
    assert (refused["details"]["window"], refused["details"]["limit"], refused["details"]["used"]) == ("day", 100, 100)
    other = (await three.ask("POST", SELECT, KEY, {"requested_model": "a", "failover": "any"})).json()
    assert (other["model_id"], other["failover"]["reason"]) == ("b", "quota")
    raised = await three.ask("PUT", f"{MODELS}/a", ADMIN_KEY, {"daily_token_limit": 150})
    assert raised.json()["state"] == "enabled"
    found = (await three.ask("POST", SELECT, KEY, {"token_estimate": 50})).json()
    assert (found["model_id"], found["is_within_quota"], found["quota_remaining"]) == ("a", True, 50)
    assert (await three.ask("POST", SELECT, KEY, {"token_estimate": 51})).json()["model_id"] == "b"


async def test_a_soft_budget_that_is_used_up_leaves_the_cheapest_model(three: ApiSite) -> None:
    await three.given("_system", "prices", PriceSet("dear", "a", "p", effective_from=1, unit_pico_usd=9000))
    await three.given("acme", "tenant/acme", QuotaSet("tenant", "nano_usd", "month", 10, hard=False))
    await three.ask("POST", MODELS, ADMIN_KEY, {"model_id": "a", "is_default": True})
    await three.ask("POST", MODELS, ADMIN_KEY, {"model_id": "b"})
    assert (await three.ask("POST", SELECT, KEY, {})).json()["model_id"] == "a"
    three.used["tenant", "", "nano_usd"] = 10
    found = (await three.ask("POST", SELECT, KEY, {})).json()
    assert (found["model_id"], found["selection_reason"], found["price_ceiling"]) == ("b", "price_ceiling", True)
    assert found["failover"] == {
        "from": {"endpoint": "e", "model": "a"}, "to": {"endpoint": "e", "model": "b"}, "reason": "budget",
    }  # fmt: skip
    listed = (await three.ask("GET", MODELS, ADMIN_KEY)).json()["models"]
    assert [(m["model_id"], m["over_price_ceiling"], m["state"]) for m in listed] == [
        ("a", True, "enabled"),
        ("b", False, "enabled"),
    ]
    named = (await three.ask("POST", SELECT, KEY, {"requested_model": "a"})).json()
    assert (named["model_id"], named["price_ceiling"]) == ("a", True)
    await three.ask("PUT", "/api/v1/tenant-settings", ADMIN_KEY, {"price_ceiling": "none"})
    lifted = (await three.ask("POST", SELECT, KEY, {})).json()
    assert (lifted["model_id"], lifted["price_ceiling"]) == ("a", False)


# -- agents ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", [AGENTS, "/api/v1/embeddings/agents"])
async def test_an_agent_is_made_once_shown_and_changed(three: ApiSite, path: str) -> None:
    body = {"agent_id": "scout", "name": "Scout", "preferences": {"strategy": "cost", "models": ["a"]}}
    made = await three.ask("POST", path, ADMIN_KEY, body)
    assert made.status_code == 201
    assert (await three.ask("POST", path, ADMIN_KEY, body)).status_code == 200
    other = await three.ask("POST", path, ADMIN_KEY, {**body, "name": "Other"})
    assert (other.status_code, other.json()["error"]["code"]) == (409, "version_conflict")
    changed = await three.ask("PUT", f"{path}/scout", ADMIN_KEY, {"preferences": {"models": ["b"]}})
    shown = (await three.ask("GET", f"{path}/scout", ADMIN_KEY)).json()
    assert changed.json() == shown
    assert (shown["version"], shown["preferences"], shown["name"]) == (
        2,
        {
            "strategy": "tenant_default", "models": ["b"], "task_models": {}, "required_dimensions": None,
            "max_cost_per_request_nano_usd": None, "monthly_budget_nano_usd": None, "max_latency_ms": None,
        },
        None,
    )  # fmt: skip
    assert [a["agent_id"] for a in (await three.ask("GET", path, ADMIN_KEY)).json()["agents"]] == ["scout"]
    lost = await three.ask("PUT", f"{path}/scout", ADMIN_KEY, {"preferences": {}}, expected_version=1)
    assert lost.status_code == 409
    missing = await three.ask("PUT", f"{path}/nobody", ADMIN_KEY, {"preferences": {}})
    assert missing.status_code == 404


async def test_agents_are_seen_by_their_own_tenant_alone(three: ApiSite) -> None:
    await three.ask("POST", AGENTS, ADMIN_KEY, {"agent_id": "scout", "preferences": {}})
    assert (await three.ask("GET", f"{AGENTS}/scout", OTHER_KEY)).status_code == 404
    assert (await three.ask("GET", AGENTS, OTHER_KEY)).json()["agents"] == []
    assert (await three.ask("GET", AGENTS, BILLING_KEY)).status_code == 403


async def test_a_key_of_one_agent_speaks_for_it_alone(three: ApiSite) -> None:
    for name in ("scout", "other"):
        await three.ask("POST", AGENTS, ADMIN_KEY, {"agent_id": name, "preferences": {}})
    assert [a["agent_id"] for a in (await three.ask("GET", AGENTS, BOUND_KEY)).json()["agents"]] == ["scout"]
    assert (await three.ask("GET", f"{AGENTS}/other", BOUND_KEY)).status_code == 403
    assert (await three.ask("PUT", f"{AGENTS}/scout", BOUND_KEY, {"preferences": {}})).status_code == 200
    assert (await three.ask("POST", SELECT, BOUND_KEY, {"agent_id": "other"})).status_code == 403


async def test_preferences_are_checked_field_by_field(three: ApiSite) -> None:
    body = {"agent_id": "scout", "preferences": {"models": ["a", "zebra"], "max_latency_ms": -1}}
    assert fields(await three.ask("POST", AGENTS, ADMIN_KEY, body)) == [
        "preferences.max_latency_ms",
        "preferences.models[1]",
    ]
    unknown = {"agent_id": "scout", "preferences": {"colour": "red"}}
    assert fields(await three.ask("POST", AGENTS, ADMIN_KEY, unknown)) == ["preferences"]


async def test_different_agents_of_a_tenant_get_different_models(three: ApiSite) -> None:
    for name, preferences in (
        ("coder", {"task_models": {"code": "c"}, "models": ["b"]}),
        ("cheap", {"strategy": "cost"}),
    ):
        await three.ask("POST", AGENTS, ADMIN_KEY, {"agent_id": name, "preferences": preferences})
    coder = (await three.ask("GET", f"{AGENTS}/coder/models", ADMIN_KEY, task_type="code")).json()
    assert (coder["primary_model"], coder["selection_reason"], coder["fallback_models"]) == (
        "c",
        "task_model",
        ["b", "a"],
    )
    assert (await three.ask("GET", f"{AGENTS}/coder/models", ADMIN_KEY)).json()["primary_model"] == "b"
    cheap = (await three.ask("GET", f"{AGENTS}/cheap/models", ADMIN_KEY)).json()
    assert (cheap["primary_model"], cheap["selection_reason"]) == ("a", "any_cost")
    assert (await three.ask("GET", f"{AGENTS}/nobody/models", ADMIN_KEY)).status_code == 404


# -- selection ---------------------------------------------------------------------------------------------------------


async def test_the_whole_decision_is_shown(three: ApiSite) -> None:
    await three.ask("POST", MODELS, ADMIN_KEY, {"model_id": "a", "is_default": True, "priority": 5})
    await three.ask("POST", MODELS, ADMIN_KEY, {"model_id": "b"})
    found = (await three.ask("POST", SELECT, KEY, {"estimated_tokens": 50})).json()
    del found["selected_at"]
    assert found == {
        "model_id": "a",
        "model_identifier": "a",
        "provider": "p",
        "endpoint": "e",
        "dimensions": 8,
        "space": "a@1/8/unit",
        "unit": "token",
        "unit_pico_usd": 1000,
        "price": "p-a",
        "token_estimate": 50,
        "estimated_cost_nano_usd": 50,
        "is_within_quota": True,
        "quota_remaining": None,
        "price_ceiling": False,
        "selection_reason": "tenant_default",
        "is_default": True,
        "priority": 5,
        "fallback_models": ["b"],
        "fallback_available": True,
        "failover": None,
        "notices": [],
        "reasons": [
            {"model": "a", "reason": "tenant_default"},
            {"model": "b", "reason": "in line behind it"},
            {"model": "c", "reason": "the tenant has not configured it"},
        ],
    }


async def test_what_cannot_be_chosen_is_an_error_of_the_same_code_as_a_request_would_get(three: ApiSite) -> None:
    await three.ask("POST", MODELS, ADMIN_KEY, {"model_id": "a"})
    for body, status, code in (
        ({"requested_model": "zebra"}, 404, "model_not_found"),
        ({"requested_model": "b"}, 403, "model_not_enabled"),
        ({"requested_model": "a", "required_dimensions": 7}, 400, "invalid_request"),
        ({"token_estimate": 101}, 503, "no_model_available"),
        ({"token_estimate": -1}, 400, "invalid_config"),
        ({"token_estimate": 1, "estimated_tokens": 2}, 400, "invalid_config"),
    ):
        refused = await three.ask("POST", SELECT, KEY, body)
        assert (refused.status_code, refused.json()["error"]["code"]) == (status, code), body


async def test_a_change_of_the_tenants_models_is_in_force_with_the_next_decision(three: ApiSite) -> None:
    names = []
    for method, path, body in (
        ("POST", MODELS, {"model_id": "b"}),
        ("POST", MODELS, {"model_id": "c", "priority": 900}),
        ("PUT", f"{MODELS}/b", {"priority": 901}),
        ("DELETE", f"{MODELS}/b", None),
    ):
        await three.ask(method, path, ADMIN_KEY, body)
        names.append((await three.ask("POST", SELECT, KEY, {})).json()["model_id"])
    assert names == ["b", "c", "b", "c"]


async def test_the_openai_list_shows_a_tenant_what_it_may_use(three: ApiSite) -> None:
    async def shown(key: str) -> list[str]:
        return [m["id"] for m in (await three.ask("GET", "/v1/models", key)).json()["data"]]

    assert await shown(KEY) == ["a", "b", "c"]
    await three.ask("POST", MODELS, ADMIN_KEY, {"model_id": "b"})
    assert await shown(KEY) == ["b"]
    assert await shown(OTHER_KEY) == ["a", "b", "c"]
    assert (await three.ask("GET", "/v1/models/b", KEY)).status_code == 200
    assert (await three.ask("GET", "/v1/models/first", KEY)).status_code == 404
