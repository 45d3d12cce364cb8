"""Credentials where they belong: what is taken for one, what is not, and when one ends."""

from __future__ import annotations

import time

from websockets.asyncio.client import connect
from websockets.typing import Subprotocol

from tests.acceptance.conftest import Running
from tests.acceptance.http import request
from tests.acceptance.peer import Peer, session
from tests.acceptance.provider import MODEL, Simulator
from tests.support.waiting import until


async def _peer(running: Running, path: str = "/v1/agent", **headers: str) -> Peer:
    connection = await connect(
        f"ws{running.url.removeprefix('http')}{path}",
        subprotocols=[Subprotocol("emberlog.v1.msgpack")], additional_headers=headers, compression=None, proxy=None,
    )  # fmt: skip
    return Peer(connection)


async def test_a_key_in_the_address_is_no_credential(shared: Running) -> None:
    for name in ("token", "key", "api_key", "access_token"):
        peer = await _peer(shared, f"/v1/agent?{name}={shared.key}")
        await peer.send({"type": "session.open", "id": "o", "agent": {"id": "a"}})
        assert await peer.closed() == 4401
        answer = await request(f"{shared.url}/v1/embeddings?{name}={shared.key}", {"input": "a", "model": MODEL})
        assert answer.status == 401
    assert shared.key.split("_", 2)[2] not in shared.site.log.read_text().partition("listening")[2]


async def test_a_browser_opens_its_session_with_a_token_in_the_first_message(
    shared: Running, provider: Simulator
) -> None:
    peer = await _peer(shared)
    await peer.send({"type": "session.open", "id": "o", "agent": {"id": "browser"}, "token": shared.key})
    assert (await peer.take(lambda m: m.get("id") == "o"))["tenant"] == "default"
    assert (await peer.embed("browser", "a text"))["type"] == "embedding.result"
    await peer.leave()


async def test_a_token_with_two_dots_is_taken_for_a_json_web_token(shared: Running) -> None:
    answer = await request(f"{shared.url}/v1/models", key="header.payload.signature")
    assert (answer.status, answer.headers["www-authenticate"]) == (401, "Bearer")
    assert "JSON Web Token" in answer.json()["error"]["message"]
    plain = await request(f"{shared.url}/v1/models", key="header.payload")
    assert plain.status == 401
    assert "JSON Web Token" not in plain.json()["error"]["message"]


async def test_a_key_that_expires_ends_its_sessions_within_a_second(shared: Running, provider: Simulator) -> None:
    made = await shared.site.ask("keys", "create", "--tenant", "default", "--scopes", "agent", "--expires-in", "4s")

    async def known() -> bool:
        return (await request(f"{shared.url}/v1/models", key=made["key"])).status != 401

    await until(known, what="the new key is known to the gateway", timeout=1)
    async with session(shared.url, made["key"]) as peer:
        assert (await peer.embed("expiring", "a text"))["type"] == "embedding.result"
        assert await peer.closed(within=5.5) == 4401
    [listed] = [k for k in await shared.site.ask("keys", "list") if k["id"] == made["id"]]
    assert listed["expires_at"] is not None
    assert (await request(f"{shared.url}/v1/models", key=made["key"])).status == 401


async def test_a_revoked_key_is_refused_over_http_within_a_second(shared: Running, provider: Simulator) -> None:
    key = await shared.site.create_key("default", "agent", url=shared.url)
    await shared.site.ask("keys", "revoke", key.id)
    deadline = time.monotonic() + 1
    while (await request(f"{shared.url}/v1/models", key=key.token)).status != 401:
        assert time.monotonic() < deadline, "a revoked key is still taken after a second"


async def test_the_models_are_listed_as_openai_lists_them(shared: Running) -> None:
    listed = (await request(f"{shared.url}/v1/models", key=shared.key)).json()
    assert set(listed) == {"object", "data"}
    assert listed["object"] == "list"
    assert {m["id"] for m in listed["data"]} == {MODEL, "all-MiniLM-L6-v2"}
    for model in listed["data"]:
        assert {"id", "object", "created", "owned_by"} <= set(model)
        assert (model["object"], isinstance(model["created"], int)) == ("model", True)
        assert (await request(f"{shared.url}/v1/models/{model['id']}", key=shared.key)).json() == model
