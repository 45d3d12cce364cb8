"""What the client sends, the gateway's own codec reads; what that writes, the client reads."""

from __future__ import annotations

import asyncio

import msgspec
import numpy as np
import pytest

from emberlog_client import Client, Encoding, Preferences, Store
from gateway.encoding import encode as encode_rows
from gateway.wire.codec import decode, encode
from gateway.wire.messages import (
    AgentRegister,
    Cost,
    EmbeddingChunk,
    EmbeddingGenerate,
    EmbeddingResult,
    Error,
    Limits,
    SessionOpen,
    SessionOpened,
    Timings,
    Usage,
)
from tests.support.fake_gateway import KEY, FakeGateway, Message, Peer


def typed(message: Message) -> object:
    return decode(msgspec.msgpack.encode(message))


async def test_every_message_of_the_client_is_read_by_the_gateways_codec(gateway: FakeGateway) -> None:
    preferences = Preferences("cost", ["fake-model"], {"faq": "fake-model"}, 12, 1, 2, 3)
    async with Client(
        gateway.url, KEY, agent="a", agent_name="A", agent_version="1", preferences=preferences, proxy=None
    ) as client:
        await client.register(preferences, capabilities=["embed"], metadata={"team": "x"})
        await client.generate(
            ["a", "ü"], id="one", model="fake-model", dimensions=12, input_type="query", task="faq", encoding="int8",
            failover="any", optimize="latency", truncate="end", deadline=1.5, thread="t", cache="refresh",
            metadata={"k": "v"}, store=Store("docs", ["1", "2"], [{"a": 1}, {}]), progress=lambda *_: None,
        )  # fmt: skip
    opened, registered, generated = (typed(message) for _, message in gateway.received)
    assert isinstance(opened, SessionOpen)
    assert isinstance(registered, AgentRegister)
    assert isinstance(generated, EmbeddingGenerate)
    assert opened.preferences == registered.preferences
    assert registered.preferences.required_dimensions == 12
    assert (opened.agent.id, opened.agent.name, opened.agent.version) == ("a", "A", "1")
    assert (generated.input, generated.stream, generated.deadline_ms, generated.metadata) == (
        ["a", "ü"], True, 1500, {"k": "v"},
    )  # fmt: skip


@pytest.mark.parametrize("encoding", ["float32", "float16", "int8", "ubinary"])
async def test_the_gateways_messages_are_read_by_the_client(gateway: FakeGateway, encoding: Encoding) -> None:
    vectors = np.random.default_rng(7).standard_normal((5, 13)).astype(np.float32)
    result = EmbeddingResult(
        "", "event", "m", "p", "e", "m@1/13/raw", 13, encoding, 5, Usage(9, 8, 1, [3], True), Cost(None, "price"),
        {"from": {"endpoint": "a", "model": "m"}, "to": {"endpoint": "b", "model": "m"}, "reason": "timeout"},
        Timings(1, 2, 3), False, notices=["note"],
    )  # fmt: skip

    async def answer(peer: Peer, request: Message) -> None:
        result.id = request["id"]
        if request.get("stream"):
            for low, high in ((0, 2), (2, 5)):
                data, scales = encode_rows(vectors[low:high], encoding)
                chunk = EmbeddingChunk(result.id, low, high - low, data, scales or msgspec.UNSET)
                await peer.socket.send(encode(chunk))
            await peer.socket.send(encode(result))
        elif request["input"] == ["refuse"]:
            await peer.socket.send(encode(Error("rate_limited", "why", True, result.id, 90_000_000)))
        else:
            data, scales = encode_rows(vectors, encoding)
            whole = msgspec.structs.replace(result, vectors=data, scales=scales or msgspec.UNSET)
            await peer.socket.send(encode(whole))

    async def open_session(peer: Peer, message: Message) -> None:
        opened = SessionOpened(
            message["id"], "s", None, "a", {"name": "emberlog", "version": "1"}, Limits(max_inputs=7)
        )
        await peer.socket.send(encode(opened))

    gateway.behaviour = answer
    gateway.open_with = open_session
    async with Client(gateway.url, KEY, proxy=None) as client:
        assert client.session.tenant is None
        assert client.limits.max_inputs == 7
        whole, streamed = await asyncio.gather(
            client.generate(list("abcde"), encoding=encoding),
            client.generate(list("abcde"), encoding=encoding, progress=lambda *_: None),
        )
        with pytest.raises(Exception, match="why") as caught:
            await client.generate("refuse")
    assert getattr(caught.value, "retry_after", None) == 90_000
    np.testing.assert_array_equal(whole.vectors, streamed.vectors)
    match encoding:
        case "float32":
            np.testing.assert_array_equal(whole.float32(), vectors)
        case "float16":
            np.testing.assert_allclose(whole.float32(), vectors, rtol=1e-3)
        case "int8":
            np.testing.assert_allclose(whole.float32(), vectors, atol=np.abs(vectors).max() / 127)
        case "ubinary":
            np.testing.assert_array_equal(whole.float32(), np.where(vectors > 0, 1, -1))
    assert (whole.usage.truncated, whole.usage.estimated, whole.cost.nano_usd) == ((3,), True, None)
    assert whole.failover is not None
    assert (whole.failover.source.endpoint, whole.failover.target.endpoint) == ("a", "b")
    assert whole.notices == ("note",)
