"""Vectors kept and found again through a real gateway: stored by a session, searched over both, billed like any request, a tenant's own."""

from __future__ import annotations

import json

from emberlog_client import Client, Store
from tests.acceptance.conftest import Running
from tests.acceptance.http import request
from tests.acceptance.ledger import GENERATED
from tests.acceptance.peer import rows_of, session
from tests.acceptance.provider import DIMENSIONS, MODEL, Simulator

TEXTS = [f"paragraph {n} of the handbook" for n in range(12)]


async def test_what_is_stored_is_found_exported_and_deleted(shared: Running, provider: Simulator) -> None:
    api, key = f"{shared.url}/api/v1", shared.key
    made = await request(f"{api}/collections", {"name": "handbook", "model": MODEL, "dimensions": DIMENSIONS}, key=key)
    assert made.status == 201
    space = made.json()["space"]
    store = {
        "collection": "handbook",
        "ids": [f"p{n}" for n in range(12)],
        "metadata": [{"n": n, "odd": n % 2 == 1} for n in range(12)],
    }
    async with session(shared.url, key) as peer:
        stored = await peer.embed("collect-1", TEXTS, store=store)
        assert (stored["type"], stored["space"]) == ("embedding.result", space)
        vector = rows_of(stored)[5]
        query = {"type": "search.query", "id": "q1", "collection": "handbook", "vector": vector.tobytes(), "k": 3}
        await peer.send(query)
        found = await peer.take(lambda m: m["type"] == "search.result")
        assert found["space"] == space
        assert found["matches"][0]["id"] == "p5"
        assert found["matches"][0]["metadata"] == {"n": 5, "odd": True}
        refused = await peer.embed(
            "collect-2", TEXTS[:1], dimensions=32, store={"collection": "handbook", "ids": ["x"]}
        )
        assert refused["code"] == "invalid_request"
        assert space in refused["message"]
    again = await request(
        f"{api}/embeddings/search", {"collection": "handbook", "text": TEXTS[4], "filter": {"odd": False}}, key=key
    )
    assert [m["metadata"]["odd"] for m in again.json()["matches"]] == [False] * 6
    events = await shared.site.events()
    [outcome] = [e for e in events if e.type == GENERATED and e.data["request_id"] == "collect-1"]
    assert (outcome.data["collection"], outcome.data["stored"]) == ("handbook", 12)
    searches = [e for e in events if e.type == GENERATED and e.data["request_id"].startswith("search-")]
    assert len(searches) == 1, "a text is a request in the log, a vector is none"
    export = await request(f"{api}/collections/handbook/export", key=key)
    assert sorted(json.loads(line)["id"] for line in export.body.splitlines()) == sorted(store["ids"])
    await shared.site.ask("tenants", "create", "collectors")
    other = await shared.site.create_key("collectors", "agent,admin", url=shared.url)
    theirs = await request(f"{api}/embeddings/search", {"collection": "handbook", "text": "a"}, key=other.token)
    assert (theirs.status, theirs.json()["error"]["code"]) == (404, "not_found")
    gone = await request(f"{api}/collections/handbook", key=key, method="DELETE")
    assert gone.status == 204
    assert (await request(f"{api}/collections/handbook", key=key)).status == 404


async def test_the_client_stores_what_it_embeds(shared: Running, provider: Simulator) -> None:
    api = f"{shared.url}/api/v1"
    body = {"name": "by-client", "model": MODEL, "dimensions": DIMENSIONS}
    assert (await request(f"{api}/collections", body, key=shared.key)).status == 201
    async with Client(shared.url, shared.key, agent="collector", proxy=None) as client:
        await client.generate(
            TEXTS, model=MODEL, dimensions=DIMENSIONS, store=Store("by-client", [f"c{n}" for n in range(12)])
        )
    shown = (await request(f"{api}/collections/by-client", key=shared.key)).json()
    assert (shown["vectors"], shown["index"]["state"]) == (12, "none")
