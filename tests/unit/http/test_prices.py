"""`/api/v1/prices`: operators set prices, tenants see list prices and their own, and nothing that is wrong gets in."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from domain.events import ModelRegistered, ModelSpec, OfferingSpec
from tests.support.api import ApiSite
from tests.unit.wire.fake_service import ADMIN_KEY, BILLING_KEY, KEY, OPERATOR_KEY

PRICES = "/api/v1/prices"
SOON = (datetime.now(UTC) + timedelta(days=2)).replace(microsecond=0)


@pytest.fixture
async def priced(site: ApiSite) -> ApiSite:
    """The model m at the provider p is known."""
    offering = OfferingSpec(provider="p", provider_model="m", max_inputs=1, max_tokens_per_call=10)
    spec = ModelSpec(version="1", dimensions=2, max_tokens=10)
    await site.given(
        "_system", "model/m", ModelRegistered(model="m", spec=spec, offerings=[offering], state="available")
    )
    return site


def body(**fields: Any) -> dict[str, Any]:
    return {"id": "m/list", "model": "m", "provider": "p", "usd_per_million": "0.02"} | fields


async def ids(site: ApiSite, key: str, **query: Any) -> list[str]:
    answer = await site.ask("GET", PRICES, key, **query)
    assert answer.status_code == 200, answer.text
    return [price["id"] for price in answer.json()["prices"]]


async def test_a_price_is_in_force_when_it_is_answered_and_the_same_again_changes_nothing(priced: ApiSite) -> None:
    made = await priced.ask("POST", PRICES, OPERATOR_KEY, body())
    assert made.status_code == 201, made.text
    assert (made.json()["unit_pico_usd"], made.json()["usd_per_million"]) == (20_000, "0.02")
    assert (made.json()["effective"], made.json()["effective_until"], made.json()["actor"]) == (True, None, "key:k5")
    assert priced.plane.prices.list_price("m", "p", datetime.now(UTC).timestamp()).unit_pico_usd == 20_000
    head = await priced.log.head()
    again = await priced.ask("POST", PRICES, OPERATOR_KEY, body())
    assert (again.status_code, again.json(), await priced.log.head()) == (200, made.json(), head)
    other = await priced.ask("POST", PRICES, OPERATOR_KEY, body(usd_per_million="0.03"))
    assert (other.status_code, other.json()["error"]["code"]) == (409, "version_conflict")


async def test_a_tenant_sees_list_prices_and_its_own_and_no_other_tenants(priced: ApiSite) -> None:
    await priced.ask("POST", PRICES, OPERATOR_KEY, body())
    for tenant in ("acme", "other"):
        made = await priced.ask("POST", PRICES, OPERATOR_KEY, body(id=f"{tenant}-own", for_tenant=tenant))
        assert made.status_code == 201
    for key in (BILLING_KEY, ADMIN_KEY):
        assert await ids(priced, key) == ["m/list", "acme-own"]
        assert await ids(priced, key, for_tenant="other") == []
        hidden = await priced.ask("GET", f"{PRICES}/other-own", key)
        unknown = await priced.ask("GET", f"{PRICES}/unknown", key)
        assert hidden.status_code == unknown.status_code == 404
        assert hidden.text.replace("other-own", "x") == unknown.text.replace("unknown", "x")
        assert "actor" not in (await priced.ask("GET", f"{PRICES}/m/list", key)).json()
    assert await ids(priced, OPERATOR_KEY, for_tenant="other") == ["other-own"]
    assert await ids(priced, OPERATOR_KEY, limit=1, page=3) == ["other-own"]
    assert await ids(priced, OPERATOR_KEY, model="n") == await ids(priced, OPERATOR_KEY, provider="q") == []


async def test_only_operators_set_prices(priced: ApiSite) -> None:
    for key in (KEY, BILLING_KEY, ADMIN_KEY):
        assert (await priced.ask("POST", PRICES, key, body())).status_code == 403
        assert (await priced.ask("POST", f"{PRICES}/m/list/end", key, {})).status_code == 403
    assert (await priced.ask("GET", PRICES, KEY)).status_code == 403
    assert await ids(priced, OPERATOR_KEY) == []


async def test_what_is_charged_now_is_told_from_what_was_and_will_be(priced: ApiSite) -> None:
    await priced.ask("POST", PRICES, OPERATOR_KEY, body())
    offer = body(id="offer", effective_from=SOON.isoformat(), effective_until=(SOON + timedelta(days=1)).isoformat())
    assert (await priced.ask("POST", PRICES, OPERATOR_KEY, offer)).json()["effective"] is False
    assert await ids(priced, OPERATOR_KEY, effective="true") == ["m/list"]
    assert await ids(priced, OPERATOR_KEY, effective="false") == ["offer"]
    raised = body(id="raised", effective_from=(SOON + timedelta(days=9)).isoformat())
    await priced.ask("POST", PRICES, OPERATOR_KEY, raised)
    ends = (await priced.ask("GET", f"{PRICES}/m/list", OPERATOR_KEY)).json()["effective_until"]
    assert datetime.fromisoformat(ends) == SOON + timedelta(days=9), "it holds until the next one"


async def test_a_tenants_price_can_be_ended_and_it_pays_the_list_price_then(priced: ApiSite) -> None:
    await priced.ask("POST", PRICES, OPERATOR_KEY, body())
    await priced.ask("POST", PRICES, OPERATOR_KEY, body(id="own", for_tenant="acme", unit="character"))
    assert await ids(priced, BILLING_KEY, effective="true") == ["m/list", "own"]
    ended = await priced.ask("POST", f"{PRICES}/own/end", OPERATOR_KEY, {})
    assert (ended.status_code, ended.json()["effective"]) == (200, False)
    assert await ids(priced, BILLING_KEY, effective="true") == ["m/list"]
    assert (await priced.ask("POST", f"{PRICES}/nothing/end", OPERATOR_KEY, {})).status_code == 404
    late = await priced.ask("POST", f"{PRICES}/m/list/end", OPERATOR_KEY, {"effective_until": "2001-01-01"})
    assert late.json()["error"]["details"]["fields"][0]["field"] == "effective_until"


@pytest.mark.parametrize(
    ("wrong", "fields"),
    [
        ({"unit_pico_usd": 20_000}, ["unit_pico_usd"]),
        ({"usd_per_million": 0.02}, ["usd_per_million"]),
        ({"usd_per_million": "-1", "unit": "word"}, ["usd_per_million", "unit"]),
        ({"effective_from": "yesterday", "effective_until": 5, "colour": "red"}, ["effective_until", "colour"]),
        ({"effective_from": "2001-01-01"}, ["effective_from"]),
        ({"provider": "nobody"}, ["provider"]),
        ({"id": "with space"}, ["id"]),
    ],
)
async def test_what_is_wrong_is_named_and_nothing_is_written(
    priced: ApiSite, wrong: dict[str, Any], fields: list[str]
) -> None:
    head = await priced.log.head()
    answer = await priced.ask("POST", PRICES, OPERATOR_KEY, body(**wrong))
    assert answer.status_code == 400
    assert [f["field"] for f in answer.json()["error"]["details"]["fields"]] == fields
    assert await priced.log.head() == head


@pytest.mark.parametrize("number", ["1e99", "-5", "1.5", "9223372036854775808", "NaN", "1" + "0" * 30])
async def test_amounts_that_are_no_whole_numbers_within_bounds_are_refused(priced: ApiSite, number: str) -> None:
    text = f'{{"id": "x", "model": "m", "provider": "p", "unit_pico_usd": {number}}}'
    headers = {"authorization": f"Bearer {OPERATOR_KEY}", "content-type": "application/json"}
    answer = await priced.http.post(PRICES, content=text, headers=headers)
    assert answer.status_code == 400, answer.text
    assert answer.json()["error"]["code"] in ("invalid_config", "invalid_message")
    assert await ids(priced, OPERATOR_KEY) == []


async def test_a_book_that_changed_since_it_was_read_is_not_added_to(priced: ApiSite) -> None:
    assert (await priced.ask("POST", PRICES, OPERATOR_KEY, body(), expected_version=0)).status_code == 201
    version = (await priced.ask("GET", PRICES, OPERATOR_KEY)).json()["version"]
    second = body(id="second", effective_from=SOON.isoformat())
    assert (await priced.ask("POST", PRICES, OPERATOR_KEY, second, expected_version=0)).status_code == 409
    assert (await priced.ask("POST", PRICES, OPERATOR_KEY, second, expected_version=version)).status_code == 201
