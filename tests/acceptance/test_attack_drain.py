"""A drain that runs out of time."""

from __future__ import annotations

import asyncio
from pathlib import Path

from tests.acceptance.http import request
from tests.acceptance.ledger import audit
from tests.acceptance.peer import session
from tests.acceptance.provider import DIMENSIONS, MODEL, Simulator
from tests.acceptance.site import Site, endpoints_toml


async def test_who_still_waits_when_the_drain_time_is_over_is_told_to_ask_again_and_can(
    folder: Path, provider: Simulator
) -> None:
    site = Site(folder, endpoints_toml(provider))
    gateway = site.gateway(EMBERLOG_DRAIN_SECONDS="1")
    await gateway.start()
    assert gateway.key is not None
    provider.control(hold=True)
    body = {"input": "over HTTP", "model": MODEL, "dimensions": DIMENSIONS}
    async with session(gateway.url, gateway.key) as peer:
        asked = asyncio.create_task(
            request(f"{gateway.url}/v1/embeddings", body, key=gateway.key, headers={"idempotency-key": "http"})
        )
        await peer.begin("socket", "over a socket")
        await site.logged("http")
        await site.logged("socket")
        stopping = asyncio.create_task(gateway.stop())
        answer = await asked
        assert (answer.status, answer.json()["error"]["code"]) == (503, "draining")
        assert "retry-after" in answer.headers
        assert await peer.closed() == 1012
    assert await stopping == 0
    assert "Traceback" not in site.log.read_text()
    provider.control(hold=False)
    await gateway.start()
    async with session(gateway.url, gateway.key) as peer:
        assert (await peer.embed("socket", "over a socket"))["type"] == "embedding.result"
    again = await request(f"{gateway.url}/v1/embeddings", body, key=gateway.key, headers={"idempotency-key": "http"})
    assert again.status == 200
    audit(await site.events())
    assert await gateway.stop() == 0
