"""The catalogue over the management API: what is made, shown, changed and refused, and to whom."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
import pytest_asyncio

from adapters.catalogue import shipped
from domain.errors import GatewayError
from domain.events import (
    ModelStateChanged,
    ModelValidated,
    PriceSet,
    TenantConfigured,
    TenantModelConfigured,
)
from gateway.catalogue.seeding import owed
from tests.support.api import ApiSite
from tests.unit.wire.fake_service import ADMIN_KEY, KEY, OPERATOR_KEY

MODELS = "/api/v1/models"
CATALOG = "/api/v1/embedding-models/catalog"
OFFERING = {"provider": "openai", "provider_model": "maker/m", "max_inputs": 16, "max_tokens_per_call": 4096}
MODEL = {"model_id": "m", "model_version": "1", "dimensions": 8, "max_tokens": 256, "offerings": [OFFERING]}


@pytest_asyncio.fixture
async def made(site: ApiSite) -> ApiSite:
    """The site with the model `m`, a draft."""
    assert (await site.ask("POST", f"{MODELS}/register", OPERATOR_KEY, MODEL)).status_code == 201
    return site


async def state(site: ApiSite, wanted: str, **more: Any) -> Any:
    answer = await site.ask("POST", f"{MODELS}/m/state", OPERATOR_KEY, {"state": wanted, **more})
    return answer.status_code, answer.json()


async def validated(site: ApiSite) -> None:
    """`m` is available."""
    assert (await state(site, "testing"))[0] == 200
    passed = ModelValidated(model="m", endpoint="e", passed=True, at=1_000_000, space="m@1/8/unit")
    moved = ModelStateChanged(model="m", state="available", previous="testing")
    await site.given("_system", "model/m", passed, moved)


def named(answer: Any) -> list[str]:
    error = answer.json()["error"]
    assert (answer.status_code, error["code"]) == (400, "invalid_config")
    return [f["field"] for f in error["details"]["fields"]]


async def test_a_model_is_registered_once_and_again_it_is_there(made: ApiSite) -> None:
    again = await made.ask("POST", f"{MODELS}/register", OPERATOR_KEY, MODEL)
    assert (again.status_code, again.json()["state"], again.json()["version"]) == (200, "draft", 1)
    other = await made.ask("POST", f"{MODELS}/register", OPERATOR_KEY, {**MODEL, "dimensions": 9})
    assert (other.status_code, other.json()["error"]["code"]) == (409, "model_exists")


async def test_every_field_that_is_wrong_is_named(site: ApiSite) -> None:
    wrong = {"model_version": 1, "dimensions": "8", "max_tokens": None, "colour": "red", "offerings": []}
    answer = await site.ask("POST", f"{MODELS}/register", OPERATOR_KEY, wrong)
    assert named(answer) == ["model_version", "dimensions", "max_tokens", "colour", "model_id"]
    bad = {**MODEL, "model_id": "a/b", "dimensions": -1, "rank": 10**30, "offerings": [{**OFFERING, "max_inputs": 0}]}
    answer = await site.ask("POST", f"{MODELS}/register", OPERATOR_KEY, bad)
    assert named(answer) == ["model_id", "rank", "dimensions", "offerings[0].max_inputs"]
    assert await site.log.head() == 2


async def test_a_word_that_is_none_of_a_fields_own_is_answered_with_those(made: ApiSite) -> None:
    status, answer = await state(made, "draft")
    [problem] = answer["error"]["details"]["fields"]
    assert (status, problem["field"]) == (400, "state")
    assert problem["problem"].endswith("expected one of testing, available, unavailable, deprecated, removed")


@pytest.mark.parametrize("number", ["NaN", "Infinity", "1e400", "-1e5", "0.5", "1" + "0" * 5000])
async def test_a_number_that_is_none_is_refused(site: ApiSite, number: str) -> None:
    body = msgspec.json.encode(MODEL).replace(b'"dimensions":8', f'"dimensions":{number}'.encode())
    headers = {"authorization": f"Bearer {OPERATOR_KEY}", "content-type": "application/json"}
    answer = await site.http.post(f"{MODELS}/register", content=body, headers=headers)
    assert answer.status_code == 400
    assert await site.log.head() == 2


async def test_a_draft_is_shown_to_operators_alone_and_a_tested_model_to_admins(made: ApiSite) -> None:
    async def shown(key: str) -> tuple[int, int]:
        one = await made.ask("GET", f"{MODELS}/m", key)
        return one.status_code, (await made.ask("GET", MODELS, key)).json()["pagination"]["total"]

    assert [await shown(k) for k in (OPERATOR_KEY, ADMIN_KEY, KEY)] == [(200, 1), (404, 0), (404, 0)]
    await state(made, "testing")
    assert [await shown(k) for k in (OPERATOR_KEY, ADMIN_KEY, KEY)] == [(200, 1), (200, 1), (404, 0)]
    await state(made, "removed")
    assert [await shown(k) for k in (OPERATOR_KEY, ADMIN_KEY, KEY)] == [(200, 0), (404, 0), (404, 0)]
    removed = await made.ask("GET", MODELS, OPERATOR_KEY, state="removed")
    assert [m["id"] for m in removed.json()["models"]] == ["m"]


async def test_a_tenant_is_shown_models_of_its_tier_and_the_price_that_it_pays(made: ApiSite) -> None:
    await validated(made)
    price = PriceSet(price="p", model="m", provider="openai", effective_from=0, unit_pico_usd=20_000)
    own = PriceSet(price="q", model="m", provider="openai", effective_from=0, unit_pico_usd=15_000, for_tenant="acme")
    await made.given("_system", "prices", price, own)
    seen = (await made.ask("GET", f"{MODELS}/m", KEY)).json()
    assert [(o["unit_pico_usd"], o["price"]) for o in seen["offerings"]] == [(15_000, "q")]
    await made.ask("PUT", f"{MODELS}/m/config", OPERATOR_KEY, {"minimum_tier": "pro"})
    await made.given("acme", "tenant/acme", TenantConfigured(tier="starter"))
    assert (await made.ask("GET", f"{MODELS}/m", KEY)).status_code == 404


async def test_a_tenant_that_has_configured_models_shows_its_agents_those_that_are_enabled(made: ApiSite) -> None:
    await validated(made)

    async def totals() -> list[int]:
        return [(await made.ask("GET", MODELS, key)).json()["pagination"]["total"] for key in (KEY, ADMIN_KEY)]

    assert await totals() == [1, 1]
    await made.given("acme", "tenant/acme", TenantModelConfigured(model="other", state="enabled"))
    assert await totals() == [0, 1]
    await made.given("acme", "tenant/acme", TenantModelConfigured(model="m", state="disabled"))
    assert await totals() == [0, 1]
    await made.given("acme", "tenant/acme", TenantModelConfigured(model="m", state="enabled"))
    assert await totals() == [1, 1]


async def test_filters_find_and_unknown_ones_are_refused(site: ApiSite) -> None:
    await site.backing.append(owed(site.plane, shipped()))
    await site.backing.catch_up()

    async def found(**query: str) -> list[str]:
        answer = await site.ask("GET", MODELS, OPERATOR_KEY, limit="100", **query)
        assert answer.status_code == 200, answer.text
        return [m["id"] for m in answer.json()["models"]]

    assert "text-embedding-3-small" in await found(provider="openai")
    assert await found(provider="local") == ["all-MiniLM-L6-v2"]
    assert await found(search="MINILM") == ["all-MiniLM-L6-v2"]
    assert await found(state="draft") == await found(tag="none-has-this") == []
    assert len(await found(type="text")) > 3
    for query in ({"state": "gone"}, {"type": "tape"}, {"colour": "red"}):
        assert (await site.ask("GET", MODELS, OPERATOR_KEY, **query)).status_code == 400


async def test_a_change_is_in_force_when_it_is_answered_and_what_spaces_rest_on_stays(made: ApiSite) -> None:
    await validated(made)
    changed = await made.ask("PUT", f"{MODELS}/m/config", OPERATOR_KEY, {"max_tokens": 128, "name": "Em"})
    assert (changed.status_code, changed.json()["max_tokens"], changed.json()["name"]) == (200, 128, "Em")
    refused = await made.ask("PUT", f"{MODELS}/m/config", OPERATOR_KEY, {"dimensions": 16, "unit": False})
    assert named(refused) == ["dimensions", "unit"]
    stale = await made.ask("PUT", f"{MODELS}/m/config", OPERATOR_KEY, {"rank": 3}, expected_version=1)
    assert (stale.status_code, stale.json()["error"]["code"]) == (409, "version_conflict")


async def test_settings_that_cannot_be_loaded_change_nothing(made: ApiSite) -> None:
    made.service.reload_fails = GatewayError("reload_failed", "no")
    head = await made.log.head()
    answer = await made.ask("PUT", f"{MODELS}/m/config", OPERATOR_KEY, {"max_tokens": 128})
    assert (answer.status_code, answer.json()["error"]["code"]) == (502, "reload_failed")
    assert (await made.log.head(), made.plane.models.models["m"].spec.max_tokens) == (head, 256)


async def test_the_lifecycle_is_walked_by_states_and_other_ways_are_refused(made: ApiSite) -> None:
    status, refused = await state(made, "available")
    assert (status, refused["error"]["code"]) == (409, "resource_constraint")
    assert refused["error"]["details"] == {"field": "state", "state": "draft", "allowed": ["test", "update", "remove"]}
    await validated(made)
    assert (await state(made, "unavailable", reason="outage"))[1]["reason"] == "outage"
    assert (await state(made, "available"))[1]["state"] == "available"
    status, gone = await state(made, "deprecated", grace_days=30)
    assert (gone["state"], gone["deprecated"], gone["available"]) == ("deprecated", True, True)
    assert gone["removed_at"] > "2026"
    assert (await state(made, "testing"))[0] == 409
    assert (await state(made, "testing", grace_days=3))[0] == 400


async def test_a_validation_expects_the_version_that_was_read(made: ApiSite) -> None:
    stale = await made.ask("POST", f"{MODELS}/m/validate", OPERATOR_KEY, expected_version=7)
    assert (stale.status_code, stale.json()["error"]["code"]) == (409, "version_conflict")
    asked = await made.ask("POST", f"{MODELS}/m/validate", OPERATOR_KEY, expected_version=1)
    assert asked.json()["error"]["code"] == "no_model_available"


async def test_a_model_that_tenants_have_configured_is_not_removed(made: ApiSite) -> None:
    await validated(made)
    await made.given("acme", "tenant/acme", TenantModelConfigured(model="m"))
    await state(made, "deprecated", grace_days=0)
    used = await made.ask("DELETE", f"{MODELS}/m", OPERATOR_KEY)
    assert (used.status_code, used.json()["error"]["details"]["tenants"]) == (409, ["acme"])
    assert (await made.ask("DELETE", f"{MODELS}/nothing", OPERATOR_KEY)).status_code == 404


async def test_a_draft_is_removed_and_removing_it_again_changes_nothing(made: ApiSite) -> None:
    gone = await made.ask("DELETE", f"{MODELS}/m", OPERATOR_KEY)
    assert (gone.status_code, gone.content) == (204, b"")
    head = await made.log.head()
    assert (await made.ask("DELETE", f"{MODELS}/m", OPERATOR_KEY)).status_code == 204
    assert await made.log.head() == head


async def test_statistics_count_what_the_asker_may_see(made: ApiSite) -> None:
    mine = (await made.ask("GET", f"{MODELS}/statistics", OPERATOR_KEY)).json()
    assert mine == {
        "total_models": 1,
        "by_state": {"draft": 1},
        "by_type": {"embedding": 1},
        "by_provider": {"openai": 1},
        "served": 0,
    }
    assert (await made.ask("GET", f"{MODELS}/statistics", KEY)).json()["total_models"] == 0
    assert (await made.ask("GET", f"{MODELS}/state", OPERATOR_KEY)).json() == {"models": {"m": "draft"}}


async def test_the_catalogue_speaks_the_names_of_other_systems_too(site: ApiSite) -> None:
    wanted = {
        "provider": "cohere",
        "model_name": "Em",
        "model_id": "m",
        "dimensions": 8,
        "max_tokens": 512,
        "max_inputs": 96,
        "provider_config": {"truncate": "END"},
    }
    assert named(await site.ask("POST", CATALOG, OPERATOR_KEY, {**wanted, "unit_pico_usd": -1})) == ["unit_pico_usd"]
    made = await site.ask("POST", CATALOG, OPERATOR_KEY, wanted)
    assert made.status_code == 201, made.text
    entry = made.json()
    assert (entry["provider"], entry["unit_pico_usd"], entry["is_available"]) == ("cohere", None, False)
    assert (await site.ask("POST", CATALOG, OPERATOR_KEY, wanted)).status_code == 200
    assert (await site.ask("GET", CATALOG, OPERATOR_KEY)).json()["models"] == []
    assert len((await site.ask("GET", CATALOG, OPERATOR_KEY, available_only="false")).json()["models"]) == 1
    await validated(site)
    down = await site.ask("PUT", f"{CATALOG}/m", OPERATOR_KEY, {"is_available": False, "max_tokens": 400})
    assert (down.json()["state"], down.json()["max_tokens"]) == ("unavailable", 400)
    change = {"is_deprecated": True, "deprecation_date": "2031-01-31", "unit_pico_usd": 100_000}
    going = (await site.ask("PUT", f"{CATALOG}/m", OPERATOR_KEY, change)).json()
    assert (going["is_deprecated"], going["is_available"], going["unit_pico_usd"]) == (True, False, 100_000)
    assert going["deprecation_date"].startswith("2031-01")
    head = await site.log.head()
    soon = await site.ask("PUT", f"{CATALOG}/m", OPERATOR_KEY, {"unit_pico_usd": 10**12, "is_available": True})
    assert (named(soon), await site.log.head()) == (["unit_pico_usd"], head)
    for wrong in ({"is_deprecated": False}, {"deprecation_date": "2031-01-31"}, {"provider": "x", "unit_pico_usd": 1}):
        assert (await site.ask("PUT", f"{CATALOG}/m", OPERATOR_KEY, wrong)).status_code == 400
    assert (await site.ask("DELETE", f"{CATALOG}/m", OPERATOR_KEY)).status_code == 409


async def test_providers_tell_what_can_be_set_there(made: ApiSite) -> None:
    found = {
        p["name"]: p
        for p in (await made.ask("GET", "/api/v1/embedding-models/providers", OPERATOR_KEY)).json()["providers"]
    }
    assert found["openai"]["models"] == ["m"]
    assert found["cohere"]["config"] == {"truncate": ["NONE", "START", "END"]}
