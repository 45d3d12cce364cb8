from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from gateway.encoding import decode
from tests.unit.wire.fake_service import FakeService, rows_of
from tests.unit.wire.harness import QUICK, Gateway


@pytest.fixture
async def gateway() -> AsyncIterator[Gateway]:
    async with Gateway(FakeService(), QUICK).running() as running:
        yield running


async def test_a_session_opens_and_embeds_over_a_real_socket(gateway: Gateway) -> None:
    async with gateway.client() as client:
        opened = await client.open("worker-7")
        assert opened["agent"] == "worker-7"
        assert opened["tenant"] == "acme"
        assert opened["server"]["name"] == "emberlog"
        assert opened["limits"]["max_message_bytes"] == 16 * 1024 * 1024
        answer = await client.embed("r1", ["one", "two"])
        assert answer["type"] == "embedding.result"
        assert (answer["id"], answer["count"], answer["dimensions"]) == ("r1", 2, 4)
        assert (decode(answer["vectors"], "float32", 4) == rows_of(["one", "two"], 4)).all()
