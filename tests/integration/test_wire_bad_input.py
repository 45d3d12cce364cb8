"""Bad input over a real socket: a clear answer to its sender, and another connection that notices nothing."""

from __future__ import annotations

import asyncio
import contextlib
import gc
from collections.abc import AsyncIterator
from typing import Any

import msgpack
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.unit.wire.fake_service import FakeService
from tests.unit.wire.harness import QUICK, Client, Gateway
from tests.unit.wire.raw_peer import RawPeer, masked_frame

GOOD = {"type": "embedding.generate", "id": "q", "input": "hello"}


@pytest.fixture
async def gateway() -> AsyncIterator[Gateway]:
    async with Gateway(FakeService(), QUICK).running() as running:
        yield running


@pytest.fixture
async def bystander(gateway: Gateway) -> AsyncIterator[Client]:
    """Another connection, with a request in flight from before the mischief, that must be answered after it."""
    async with gateway.session("em_other", "bystander") as client:
        gateway.service.hold = True
        await client.send({"type": "embedding.generate", "id": "before", "input": "patience"})
        await gateway.service.arrived.wait()
        gateway.service.hold = False
        yield client
        gateway.service.tickets[0].answer()
        assert (await client.receive())["id"] == "before"
        assert (await client.embed("after"))["type"] == "embedding.result"


def pack(value: Any) -> bytes:
    packed: bytes = msgpack.packb(value, unicode_errors="surrogatepass")
    return packed


def with_bytes(name: str, raw: bytes) -> bytes:
    return bytes((0x80 | len(GOOD) + 1,)) + pack(GOOD)[1:] + pack(name) + raw


async def test_a_text_frame_closes_with_1003(gateway: Gateway, bystander: Client) -> None:
    async with gateway.session() as client:
        await client.connection.send("text")
        assert await client.closed() == 1003


@pytest.mark.parametrize(
    "bad", [b"\xc1", b"{}", pack([1]), pack("x"), b"", b"\x91" * 1_000_000], ids=lambda b: f"{len(b)}-bytes"
)
async def test_what_is_no_map_is_answered_twice_and_closes_with_4400_the_third_time_in_a_row(
    gateway: Gateway, bystander: Client, bad: bytes
) -> None:
    async with gateway.session() as client:
        for _ in range(2):
            answer = await client.ask(bad)
            assert (answer["type"], answer["code"]) == ("error", "invalid_message")
            assert "id" not in answer
        assert (await client.embed())["type"] == "embedding.result"
        for _ in range(3):
            await client.send(bad)
        assert await client.closed() == 4400


@pytest.mark.parametrize(
    ("message", "code", "request_id"),
    [
        ({"id": "q"}, "invalid_message", "q"),
        ({"id": "q", "type": 5}, "invalid_message", "q"),
        ({"id": "q", "type": "embedding.degenerate"}, "unknown_type", "q"),
        ({"type": "usage.subscribe"}, "unknown_type", None),
        ({**GOOD, "input": 5}, "invalid_message", "q"),
        ({**GOOD, "input": ["a", ["b"]]}, "invalid_message", "q"),
        ({**GOOD, "input": "nul\0"}, "invalid_message", "q"),
        ({**GOOD, "thread": "nul\0"}, "invalid_message", "q"),
        ({**GOOD, "input": "\ud800"}, "invalid_message", "q"),
        ({**GOOD, "input": ["fine", "\udc00"]}, "invalid_message", "q"),
        ({**GOOD, "dimensions": 2**64 - 1}, "invalid_message", "q"),
        ({**GOOD, "dimensions": "many"}, "invalid_message", "q"),
        ({**GOOD, "encoding": "float8"}, "invalid_request", "q"),
        ({**GOOD, "input": []}, "invalid_request", "q"),
        ({**GOOD, "input": ["a", "", "b"]}, "invalid_request", "q"),
        ({**GOOD, "id": ""}, "invalid_message", None),
        ({**GOOD, "id": "x" * 65}, "invalid_message", None),
    ],
)
async def test_a_bad_message_is_answered_and_the_connection_stays_open(
    gateway: Gateway, bystander: Client, message: Any, code: str, request_id: str | None
) -> None:
    async with gateway.session() as client:
        # More than three of them: only frames that are no map count towards closing.
        for _ in range(4):
            answer = await client.ask(message)
            assert (answer["type"], answer["code"], answer.get("id")) == ("error", code, request_id)
            assert answer["retryable"] is False
        assert (await client.embed())["type"] == "embedding.result"


@pytest.mark.parametrize(
    "bomb",
    [
        with_bytes("bomb", b"\x91" * 10_000_000),
        with_bytes("bomb", b"\x81\xa1k" * 3_000_000),
        with_bytes("declared", b"\xdd\x80\x00\x00\x00"),
        b"\x83"
        + pack("type")
        + pack("embedding.generate")
        + pack("id")
        + pack("q")
        + pack("input")
        + b"\xdd\x80\x00\x00\x00",
        b"\xdf\x80\x00\x00\x00",
    ],
    ids=["nested-arrays", "nested-maps", "array-of-2-31", "input-of-2-31", "map-of-2-31"],
)
async def test_a_bomb_is_refused_without_cost(gateway: Gateway, bystander: Client, bomb: bytes) -> None:
    async with gateway.session() as client:
        answer = await client.ask(bomb)
        assert answer["type"] == "error"
        assert answer["code"] in ("invalid_message", "invalid_request")
        assert answer.get("id") == (None if bomb[0] == 0xDF else "q")
        assert (await client.embed())["type"] == "embedding.result"


async def test_a_frame_of_100_mb_closes_with_1009_by_its_header_alone(gateway: Gateway, bystander: Client) -> None:
    peer = await RawPeer.connect(gateway.port)
    await peer.upgrade("em_agent")
    await peer.write(bytes((0x82, 0xFF)) + (100_000_000).to_bytes(8, "big") + b"mask")
    assert await peer.close_code() == 1009
    await peer.close()
    async with gateway.session() as client:
        # A client that sends it all sees the code as well: its bytes are read into nothing.
        with contextlib.suppress(Exception):
            await client.connection.send(bytes(100_000_000))
        assert await client.closed() in (1009, 1006)


async def test_fragments_that_pass_the_limit_together_close_with_1009(gateway: Gateway, bystander: Client) -> None:
    peer = await RawPeer.connect(gateway.port)
    await peer.upgrade(None)
    await peer.write(masked_frame(0x02, b"x" * 60_000))
    await peer.write(masked_frame(0x80, b"x" * 60_000))
    assert await peer.close_code() == 1009
    await peer.close()


@pytest.mark.parametrize("data", [b"\x82\x01x", b"\xc2\x81\0\0\0\0x", b"\x8b\x80\0\0\0\0", b"GET / HTTP/1.1\r\n\r\n"])
async def test_bytes_that_are_no_websocket_close_with_1002(gateway: Gateway, bystander: Client, data: bytes) -> None:
    peer = await RawPeer.connect(gateway.port)
    await peer.upgrade("em_agent")
    await peer.write(data)
    assert await peer.close_code() == 1002
    await peer.close()


async def test_a_client_that_vanishes_in_flight_has_its_requests_given_up(gateway: Gateway, bystander: Client) -> None:
    gateway.service.hold = True
    peer = await RawPeer.connect(gateway.port)
    await peer.upgrade("em_agent")
    await peer.write(masked_frame(0x82, pack({"type": "session.open", "id": "o", "agent": {"id": "a"}})))
    gateway.service.arrived.clear()
    await peer.write(masked_frame(0x82, pack(GOOD)))
    await gateway.service.arrived.wait()
    ticket = gateway.service.tickets[-1]
    peer.reset()
    async with asyncio.timeout(2):
        await ticket.vanished.wait()
    assert not ticket.cancelled.is_set()
    ticket.answer()  # goes nowhere
    assert len(gateway.registry.sessions) == 1
    gateway.service.hold = False


async def test_half_an_upgrade_and_half_a_frame_hold_nothing_up(gateway: Gateway, bystander: Client) -> None:
    slow = await RawPeer.connect(gateway.port)
    await slow.write(b"GET /v1/agent HTTP/1.1\r\nHost: x\r\nUpgrade: web")
    half = await RawPeer.connect(gateway.port)
    await half.upgrade("em_agent")
    await half.write(masked_frame(0x82, pack(GOOD))[:10])
    async with gateway.session() as client:
        assert (await client.embed())["type"] == "embedding.result"
    await slow.close()
    await half.close()


async def test_an_endless_request_head_is_refused_with_431(gateway: Gateway, bystander: Client) -> None:
    peer = await RawPeer.connect(gateway.port)
    await peer.write(b"GET /v1/agent HTTP/1.1\r\nX-Endless: ")
    with contextlib.suppress(ConnectionError):
        for _ in range(100):
            await peer.write(b"x" * 10_000)
    assert b" 431 " in await peer.status_line()
    await peer.close()


frames = st.one_of(
    st.binary(max_size=200),
    st.binary(max_size=200).map(lambda payload: masked_frame(0x82, payload)),
    st.tuples(st.integers(0, 255), st.binary(max_size=50)).map(lambda t: masked_frame(t[0], t[1])),
    st.tuples(st.just(pack(GOOD)), st.integers(0, 40), st.binary(max_size=3)).map(
        lambda t: masked_frame(0x82, t[0][: t[1]] + t[2] + t[0][t[1] :])
    ),
)


async def test_random_and_mutated_frames_never_hurt_the_server_or_another_session(
    gateway: Gateway, bystander: Client
) -> None:
    loop = asyncio.get_running_loop()

    async def attack(sent: list[bytes], opened: bool) -> None:
        peer = await RawPeer.connect(gateway.port)
        await peer.upgrade("em_agent")
        if opened:
            await peer.write(masked_frame(0x82, pack({"type": "session.open", "id": "o", "agent": {"id": "a"}})))
        with contextlib.suppress(ConnectionError):
            for data in sent:
                await peer.write(data)
        await bystander.embed("meanwhile")
        peer.reset()

    @given(st.lists(frames, max_size=5), st.booleans())
    @settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
    def attacks(sent: list[bytes], opened: bool) -> None:
        asyncio.run_coroutine_threadsafe(attack(sent, opened), loop).result(20)

    failures: list[dict[str, Any]] = []
    loop.set_exception_handler(lambda _loop, context: failures.append(context))
    await asyncio.to_thread(attacks)
    gc.collect()
    assert not failures
    assert gateway.registry.opened_total > 30
