"""`search.query` over a real socket: answered beside requests, refused by field, and of the asker's tenant alone."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import numpy as np
import pytest

from domain.events import CollectionCreated
from domain.plane import ControlPlane
from gateway.collections.ports import table_of
from gateway.collections.searching import Searcher
from tests.support.planes import plane_of, registered
from tests.support.vector_tables import MemoryVectorTables
from tests.unit.wire.fake_service import OTHER_KEY, FakeService, rows_of
from tests.unit.wire.harness import QUICK, Gateway

SPACE = "tiny@1/4/unit"
TEXTS = [f"text {n}" for n in range(12)]


@pytest.fixture
async def gateway() -> AsyncIterator[Gateway]:
    plane: ControlPlane = plane_of(registered("tiny", unit=True, dimensions=4))
    plane.collections.apply("acme", CollectionCreated("docs", "a" * 32, SPACE))
    tables, service = MemoryVectorTables(), FakeService()
    table = table_of(plane.collections.find("acme", "docs"))
    await tables.upsert(table, TEXTS, rows_of(TEXTS, 4), [{"n": n} for n in range(11)] + [None])
    service.searches = Searcher(plane, tables, service.generate)
    async with Gateway(service, QUICK).running() as running:
        yield running


def query(query_id: str = "q1", **fields: Any) -> dict[str, Any]:
    return {"type": "search.query", "id": query_id, "collection": "docs", **fields}


def packed(*numbers: float) -> bytes:
    return np.array(numbers, dtype="<f4").tobytes()


async def test_a_text_and_a_vector_find_the_nearest_rows(gateway: Gateway) -> None:
    async with gateway.session() as client:
        await client.send(query(text="text 3", k=3))
        by_text = await client.receive()
        await client.send(query("q2", vector=packed(*rows_of(["text 3"], 4)[0]), k=3))
        by_vector = await client.receive()
    assert (by_text["type"], by_text["id"], by_text["space"]) == ("search.result", "q1", SPACE)
    assert by_text["matches"][0] == {"id": "text 3", "score": pytest.approx(1), "metadata": {"n": 3}}
    assert [m["id"] for m in by_vector["matches"]] == [m["id"] for m in by_text["matches"]]
    assert len(by_text["matches"]) == 3


async def test_a_filter_takes_a_value_or_several_and_a_row_without_metadata_says_nothing_of_it(
    gateway: Gateway,
) -> None:
    async with gateway.session() as client:
        await client.send(query(text="text 3", filter={"n": [1, 2]}))
        assert {m["id"] for m in (await client.receive())["matches"]} == {"text 1", "text 2"}
        await client.send(query(text="text 3", filter={"n": 5}))
        assert [m["id"] for m in (await client.receive())["matches"]] == ["text 5"]
        await client.send(query(text="text 11", k=1))
        assert "metadata" not in (await client.receive())["matches"][0]
        await client.send(query(text="text 3", threshold=1.0, filter={"n": 4}))
        assert (await client.receive())["matches"] == []


@pytest.mark.parametrize(
    ("fields", "code", "field"),
    [
        ({}, "invalid_request", "text"),
        ({"text": "a", "vector": b""}, "invalid_request", "text"),
        ({"vector": b"abc"}, "invalid_request", "vector"),
        ({"vector": packed(1, 2, 3)}, "invalid_request", "vector"),
        ({"vector": packed(1, 2, 3, float("nan"))}, "invalid_request", "vector"),
        ({"vector": packed(1, 2, 3, float("inf"))}, "invalid_request", "vector"),
        ({"vector": packed(0, 0, 0, 0)}, "invalid_request", "vector"),
        ({"vector": [1, 2, 3, 4]}, "invalid_message", "vector"),
        ({"text": "a", "k": 101}, "invalid_request", "k"),
        ({"text": "a", "k": "1"}, "invalid_message", "k"),
        ({"text": "a\0"}, "invalid_message", "text"),
        ({"text": "a", "filter": {"n\0": 1}}, "invalid_message", "filter"),
        ({"text": "a", "filter": {"n": float("nan")}}, "invalid_request", "filter"),
        ({"text": "a", "threshold": float("nan")}, "invalid_request", "threshold"),
        ({"text": "a", "collection": "none"}, "not_found", "collection"),
        ({"text": "a", "collection": "x" * 200}, "invalid_request", "collection"),
    ],
)
async def test_what_cannot_be_searched_for_is_refused_by_field_and_the_session_goes_on(
    gateway: Gateway, fields: dict[str, Any], code: str, field: str
) -> None:
    async with gateway.session() as client:
        await client.send(query(**fields))
        answer = await client.receive()
        assert (answer["type"], answer["id"], answer["code"]) == ("error", "q1", code)
        assert answer["details"]["field"].startswith(field)
        assert (await client.embed("r1", "a"))["type"] == "embedding.result"


async def test_another_tenant_finds_nothing_of_it(gateway: Gateway) -> None:
    async with gateway.session(OTHER_KEY) as client:
        await client.send(query(text="text 3"))
        assert (await client.receive())["code"] == "not_found"
        assert gateway.service.tickets == []


async def test_searches_count_among_what_a_connection_has_in_flight(gateway: Gateway) -> None:
    gateway.service.hold = True
    most = gateway.service.limits.max_in_flight
    async with gateway.session() as client:
        for n in range(most + 1):
            await client.send(query(f"q{n}", text="text 1"))
        refused = await client.receive()
        assert (refused["id"], refused["code"]) == (f"q{most}", "too_many_in_flight")
        while len(gateway.service.tickets) < most:
            await asyncio.sleep(0)
        for ticket in gateway.service.tickets:
            ticket.answer()
        assert {(await client.receive())["type"] for _ in range(most)} == {"search.result"}
