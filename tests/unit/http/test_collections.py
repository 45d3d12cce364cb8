"""Collections over HTTP: made, shown, listed, emptied, exported and deleted; each tenant has its own and installation keys see none."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from typing import Any

import numpy as np
import pytest
import pytest_asyncio

from tests.support.api import ApiSite, api_site
from tests.support.planes import registered
from tests.unit.wire.fake_service import ADMIN_KEY, KEY, OPERATOR_KEY, OTHER_KEY

URL = "/api/v1/collections"
SPACE = "tiny@1/8/unit"


@pytest_asyncio.fixture
async def site() -> AsyncIterator[ApiSite]:
    async with api_site() as made:
        await made.given("_system", "model/tiny", registered("tiny", unit=True, dimensions_allowed=[4]))
        yield made


async def filled(site: ApiSite, ids: list[str]) -> None:
    await site.ask("POST", URL, ADMIN_KEY, {"name": "docs", "space": SPACE})
    from gateway.collections.ports import table_of

    table = table_of(site.plane.collections.find("acme", "docs"))
    rows = np.arange(len(ids) * 8, dtype=np.float32).reshape(-1, 8)
    await site.vectors.upsert(table, ids, rows, [{"n": n} for n in range(len(ids))])


async def test_a_collection_is_made_of_a_space_or_of_a_model(site: ApiSite) -> None:
    made = await site.ask("POST", URL, ADMIN_KEY, {"name": "docs", "space": SPACE})
    again = await site.ask("POST", URL, ADMIN_KEY, {"name": "docs", "model": "tiny", "input_type": "document"})
    other = await site.ask("POST", URL, ADMIN_KEY, {"name": "docs", "model": "tiny", "dimensions": 4})
    assert (made.status_code, again.status_code, other.status_code) == (201, 200, 409)
    assert made.json() == again.json() == {"name": "docs", "tenant": "acme", "space": SPACE, "dimensions": 8}
    assert SPACE in other.json()["error"]["message"]
    assert "tiny@1/4/unit" in other.json()["error"]["message"]
    shown = await site.ask("GET", f"{URL}/docs", KEY)
    assert shown.json() == {
        **made.json(),
        "vectors": 0,
        "index": {"state": "none", "phase": None, "done": None, "total": None},
    }
    listed = await site.ask("GET", URL, KEY)
    assert listed.json()["collections"] == [made.json()]


@pytest.mark.parametrize(
    ("body", "code", "field"),
    [
        ({"name": "docs"}, "invalid_request", "space"),
        ({"name": "docs", "space": SPACE, "model": "tiny"}, "invalid_request", "space"),
        ({"name": "Docs", "space": SPACE}, "invalid_config", "name"),
        ({"name": "docs", "space": "tiny@9/8/unit"}, "invalid_config", "space"),
        ({"name": "docs", "model": "nobody"}, "model_not_found", "model"),
        ({"name": "docs", "model": "tiny", "dimensions": 5}, "invalid_config", "dimensions"),
        ({"name": "docs", "space": SPACE, "spaces": 1}, "invalid_config", "spaces"),
    ],
)
async def test_what_is_wrong_with_a_collection_is_said_by_field(
    site: ApiSite, body: dict[str, Any], code: str, field: str
) -> None:
    answer = await site.ask("POST", URL, ADMIN_KEY, body)
    assert (answer.json()["error"]["code"], answer.json()["error"]["details"]["field"]) == (code, field)
    assert site.plane.collections.of("acme") == []


async def test_rows_are_paged_by_id_deleted_and_exported(site: ApiSite) -> None:
    await filled(site, [f"{n:02}" for n in range(25)])
    seen: list[str] = []
    after: str | None = ""
    while after is not None:
        page = (await site.ask("GET", f"{URL}/docs/rows", KEY, after=after, limit="10")).json()
        seen += [row["id"] for row in page["rows"]]
        assert all("vector" not in row for row in page["rows"])
        after = page["next"]
    assert seen == [f"{n:02}" for n in range(25)]
    with_vectors = await site.ask("GET", f"{URL}/docs/rows", KEY, vectors="true", limit="1")
    assert with_vectors.json()["rows"][0]["vector"] == list(range(8))
    gone = await site.ask("POST", f"{URL}/docs/rows/delete", KEY, {"ids": ["03", "04", "nobody"]})
    assert gone.json() == {"deleted": 2}
    export = await site.ask("GET", f"{URL}/docs/export", KEY)
    assert export.headers["content-type"].startswith("application/x-ndjson")
    rows = [json.loads(line) for line in export.text.splitlines()]
    assert [row["id"] for row in rows] == [i for i in seen if i not in ("03", "04")]
    assert rows[3] | {"updated_at": ""} == {
        "id": "05", "metadata": {"n": 5}, "updated_at": "", "vector": list(range(40, 48)),
    }  # fmt: skip
    assert (await site.ask("POST", f"{URL}/docs/rows/delete", KEY, {"ids": []})).status_code == 400


async def test_a_deleted_collection_is_gone_with_its_rows(site: ApiSite) -> None:
    await filled(site, ["a"])
    assert (await site.ask("DELETE", f"{URL}/docs", ADMIN_KEY)).status_code == 204
    assert site.vectors.tables == {}
    for method, path in (("GET", ""), ("GET", "/rows"), ("GET", "/export"), ("DELETE", "")):
        assert (await site.ask(method, f"{URL}/docs{path}", ADMIN_KEY)).status_code == 404
    await site.ask("POST", URL, ADMIN_KEY, {"name": "docs", "space": SPACE})
    assert (await site.ask("GET", f"{URL}/docs", ADMIN_KEY)).json()["vectors"] == 0


async def test_one_that_could_not_be_dropped_at_once_is_out_of_reach_all_the_same(site: ApiSite) -> None:
    await filled(site, ["a"])

    async def unreachable(table: object) -> bool:
        raise OSError

    site.vectors.drop = unreachable  # type: ignore[method-assign]
    assert (await site.ask("DELETE", f"{URL}/docs", ADMIN_KEY)).status_code == 204
    assert (await site.ask("GET", f"{URL}/docs", ADMIN_KEY)).status_code == 404
    assert {table for table, _ in await site.vectors.kept()} == site.plane.collections.ended


async def test_a_database_out_of_reach_is_unavailable(site: ApiSite) -> None:
    await filled(site, ["a"])
    site.vectors.fail = OSError("gone")
    answer = await site.ask("GET", f"{URL}/docs", KEY)
    assert (answer.status_code, answer.json()["error"]["code"]) == (503, "unavailable")


async def test_another_tenant_and_the_installation_see_none_of_it(site: ApiSite) -> None:
    await filled(site, ["a"])
    assert (await site.ask("GET", f"{URL}/docs", OTHER_KEY)).status_code == 404
    for query in ({}, {"tenant": "acme"}):
        for path in ("", "/docs", "/docs/rows", "/docs/export"):
            answer = await site.ask("GET", URL + path, OPERATOR_KEY, **query)
            assert (answer.status_code, answer.json()["error"]["code"]) == (403, "forbidden")
