"""Searches over HTTP: the nearest rows to a text or a vector, filtered and cut off, and what cannot be searched for."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import numpy as np
import pytest
import pytest_asyncio

from domain.events import ModelUpdated
from gateway.collections.ports import table_of
from tests.support.api import ApiSite, api_site
from tests.support.planes import registered
from tests.unit.wire.fake_service import ADMIN_KEY, KEY, OPERATOR_KEY, OTHER_KEY, rows_of

URL = "/api/v1/embeddings/search"
SPACE = "tiny@1/4/unit"
TEXTS = [f"text {n}" for n in range(20)]


@pytest_asyncio.fixture
async def site() -> AsyncIterator[ApiSite]:
    """The collection `docs` of acme holds a row for each text; what embeds them gives vectors of four numbers."""
    async with api_site() as made:
        await made.given("_system", "model/tiny", registered("tiny", unit=True, dimensions=4, dimensions_allowed=[2]))
        await made.ask("POST", "/api/v1/collections", ADMIN_KEY, {"name": "docs", "space": SPACE})
        table = table_of(made.plane.collections.find("acme", "docs"))
        await made.vectors.upsert(table, TEXTS, rows_of(TEXTS, 4), [{"n": n, "odd": n % 2 == 1} for n in range(20)])
        yield made


def nearest(text: str, k: int = 20) -> list[str]:
    rows = rows_of(TEXTS, 4)
    rows = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    scores = rows @ rows_of([text], 4)[0]
    return [TEXTS[n] for n in np.argsort(-scores)[:k]]


async def found(site: ApiSite, **body: Any) -> list[dict[str, Any]]:
    answer = await site.ask("POST", URL, KEY, {"collection": "docs", **body})
    assert answer.status_code == 200, answer.text
    assert answer.json()["space"] == SPACE
    matches: list[dict[str, Any]] = answer.json()["matches"]
    return matches


async def test_a_text_is_embedded_in_the_space_of_the_collection_as_any_request_is(site: ApiSite) -> None:
    matches = await found(site, text="text 7", k=5)
    assert [m["id"] for m in matches] == nearest("text 7", 5)
    assert matches[0]["id"] == "text 7"
    assert matches[0]["score"] == pytest.approx(1)
    assert matches[0]["metadata"] == {"n": 7, "odd": True}
    [ticket] = site.service.tickets
    assert (ticket.message.model, ticket.message.dimensions, ticket.message.input_type, ticket.message.failover) == (
        "tiny",
        4,
        "query",
        "same_space",
    )


async def test_a_vector_is_searched_for_as_it_is_whatever_its_length(site: ApiSite) -> None:
    vector = rows_of(["text 3"], 4)[0]
    for scale in (1.0, 1e-30, 1e30):
        matches = await found(site, vector=[float(x) * scale for x in vector], k=3)
        assert [m["id"] for m in matches] == nearest("text 3", 3)
    assert site.service.tickets == []


async def test_a_filter_and_a_threshold_leave_what_fits(site: ApiSite) -> None:
    odd = await found(site, text="text 7", filter={"odd": True}, k=100)
    assert [m["id"] for m in odd] == [i for i in nearest("text 7") if int(i.split()[1]) % 2]
    some = await found(site, text="text 7", filter={"n": [1, 2, 3], "odd": True})
    assert {m["id"] for m in some} == {"text 1", "text 3"}
    near = await found(site, text="text 7", threshold=0.5, k=100)
    assert near == [m for m in await found(site, text="text 7", k=100) if m["score"] >= 0.5]
    assert 0 < len(near) < 20


@pytest.mark.parametrize(
    ("body", "code", "field"),
    [
        ({}, "invalid_request", "text"),
        ({"text": "a", "vector": [1, 2, 3, 4]}, "invalid_request", "text"),
        ({"text": ""}, "invalid_request", "text"),
        ({"text": "a", "k": 0}, "invalid_request", "k"),
        ({"text": "a", "k": 101}, "invalid_request", "k"),
        ({"text": "a", "threshold": 1.5}, "invalid_request", "threshold"),
        ({"text": "a", "filter": {f"f{n}": [1, 2] for n in range(60)}}, "invalid_request", "filter"),
        ({"text": "a", "filter": {"n": {"$gt": 1}}}, "invalid_config", "filter"),
        ({"vector": [1, 2, 3]}, "invalid_request", "vector"),
        ({"vector": []}, "invalid_request", "vector"),
        ({"vector": [0, 0, 0, 0]}, "invalid_request", "vector"),
        ({"vector": [1, 1e300, 1, 1]}, "invalid_request", "vector"),
        ({"vector": [1, "a", 1, 1]}, "invalid_config", "vector"),
        ({"collection": "none", "text": "a"}, "not_found", "collection"),
    ],
)
async def test_what_cannot_be_searched_for_is_refused_by_field(
    site: ApiSite, body: dict[str, Any], code: str, field: str
) -> None:
    answer = await site.ask("POST", URL, KEY, {"collection": "docs", **body})
    error = answer.json()["error"]
    assert error["code"] == code
    assert error["details"]["field"].startswith(field)
    assert site.service.tickets == [], "nothing was embedded, and nothing is billed"


async def test_a_vector_of_another_length_is_told_the_space(site: ApiSite) -> None:
    answer = await site.ask("POST", URL, KEY, {"collection": "docs", "vector": [1, 2, 3]})
    assert "3 numbers" in answer.json()["error"]["message"]
    assert SPACE in answer.json()["error"]["message"]


async def test_a_model_that_became_another_is_refused_with_both_spaces_before_anything_is_embedded(
    site: ApiSite,
) -> None:
    newer = registered("tiny", version="2", unit=True, dimensions=4)
    await site.given("_system", "model/tiny", ModelUpdated("tiny", newer.spec, newer.offerings))
    answer = await site.ask("POST", URL, KEY, {"collection": "docs", "text": "text 1"})
    assert answer.status_code == 400
    assert SPACE in answer.json()["error"]["message"]
    assert "tiny@2/4/unit" in answer.json()["error"]["message"]
    assert site.service.tickets == []
    assert await found(site, vector=[1, 2, 3, 4])


async def test_another_tenant_and_the_installation_find_nothing_of_it(site: ApiSite) -> None:
    body = {"collection": "docs", "vector": [1, 2, 3, 4]}
    theirs = await site.ask("POST", URL, OTHER_KEY, body)
    nobodys = await site.ask("POST", URL, OTHER_KEY, {**body, "collection": "dogs"})
    assert theirs.status_code == 404
    assert theirs.json()["error"]["message"].replace("docs", "dogs") == nobodys.json()["error"]["message"]
    assert (await site.ask("POST", URL, OPERATOR_KEY, body, tenant="acme")).status_code == 403
