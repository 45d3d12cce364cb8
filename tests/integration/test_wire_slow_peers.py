"""Peers that do not read, do not answer pings, or die: their memory comes back and nobody else waits."""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Callable, Coroutine
from contextlib import AbstractAsyncContextManager
from typing import Any

import msgpack
import uvloop

from gateway.wire.link import LinkSettings
from gateway.wire.sessions import WireSettings
from tests.unit.wire.fake_service import FakeService
from tests.unit.wire.harness import Gateway
from tests.unit.wire.raw_peer import RawPeer, masked_frame

MIB = 1 << 20


def pack(value: Any) -> bytes:
    packed: bytes = msgpack.packb(value)
    return packed


def generate(request_id: str, count: int) -> bytes:
    return masked_frame(
        0x82, pack({"type": "embedding.generate", "id": request_id, "input": ["x"] * count, "dimensions": 1024})
    )


OPEN = masked_frame(0x82, pack({"type": "session.open", "id": "o", "agent": {"id": "a"}}))


async def deaf_peer(gateway: Gateway) -> RawPeer:
    """An open session whose peer reads nothing more, its kernel next to nothing."""
    peer = await RawPeer.connect(gateway.port, receive_buffer=4096)
    await peer.upgrade("em_agent")
    await peer.write(OPEN)
    return peer


async def gone(gateway: Gateway, within: float) -> float:
    """Seconds until the gateway has no connection left."""
    loop = asyncio.get_running_loop()
    start = loop.time()
    async with asyncio.timeout(within):
        await gateway.registry._wait_empty(within)
    assert not gateway.registry.sessions
    return loop.time() - start


def on_uvloop(test: Callable[[], Coroutine[Any, Any, None]]) -> Callable[[], None]:
    """Write buffers are the loop's own: these behaviours are proved on the loop that serves."""

    @functools.wraps(test)
    def run() -> None:
        uvloop.run(test())

    return run


def production() -> AbstractAsyncContextManager[Gateway]:
    """A gateway with the settings of production."""
    return Gateway(FakeService(), WireSettings()).running()


@on_uvloop
async def test_a_peer_with_a_zero_receive_window_is_gone_within_five_seconds_and_its_memory_with_it() -> None:
    async with production() as gateway:
        peer = await deaf_peer(gateway)
        await peer.write(b"".join(generate(f"r{i}", 1000) for i in range(4)))
        async with asyncio.timeout(2):
            while gateway.registry.counts()["buffered_bytes"] < 10 * MIB:
                await asyncio.sleep(0)
        session = next(iter(gateway.registry.sessions))
        assert await gone(gateway, 5) < 5
        assert session.link.buffered == 0
        assert await peer.ended()
        await peer.close()


@on_uvloop
async def test_a_little_that_is_never_taken_is_enough_to_be_gone() -> None:
    async with production() as gateway:
        peer = await deaf_peer(gateway)
        # More than both kernels' buffers take of it, less than any mark of ours.
        await peer.write(generate("r", 900))
        assert await gone(gateway, 5) < 5
        await peer.close()


@on_uvloop
async def test_while_a_peer_does_not_read_it_is_not_read_from_and_others_are_served() -> None:
    async with production() as gateway:
        peer = await deaf_peer(gateway)
        await peer.write(b"".join(generate(f"r{i}", 1000) for i in range(4)))
        async with asyncio.timeout(2):
            while gateway.registry.counts()["buffered_bytes"] < 10 * MIB:
                await asyncio.sleep(0)
        before = len(gateway.service.tickets)
        await peer.write(generate("unread", 1))
        async with gateway.session("em_other") as other:
            for i in range(20):
                assert (await other.embed(f"o{i}"))["type"] == "embedding.result"
        assert not any(t.message.id == "unread" for t in gateway.service.tickets)
        assert len(gateway.service.tickets) == before + 20
        peer.reset()


@on_uvloop
async def test_a_peer_that_reads_again_in_time_gets_every_answer() -> None:
    async with production() as gateway:
        peer = await deaf_peer(gateway)
        await peer.write(b"".join(generate(f"r{i}", 1000) for i in range(4)))
        async with asyncio.timeout(2):
            while gateway.registry.counts()["buffered_bytes"] < 10 * MIB:
                await asyncio.sleep(0)
        answers = [msgpack.unpackb((await peer.frame())[1]) for _ in range(5)]
        assert [a.get("id") for a in answers] == ["o", "r0", "r1", "r2", "r3"]
        await peer.write(generate("again", 1))
        assert msgpack.unpackb((await peer.frame())[1])["id"] == "again"
        peer.reset()


@on_uvloop
async def test_a_peer_over_the_bound_has_a_second_then_4413_then_the_socket_goes() -> None:
    link = LinkSettings(
        high_water=MIB // 4, max_buffered=MIB, drain_seconds=0.2, stall_seconds=60, slow_close_seconds=0.5
    )
    async with Gateway(FakeService(), WireSettings(sweep_seconds=0.02, link=link)).running() as gateway:
        peer = await deaf_peer(gateway)
        await peer.write(generate("r0", 1500))
        assert await gone(gateway, 3) >= 0.2
        await peer.close()
        reader = await deaf_peer(gateway)
        await reader.write(generate("r0", 1500))
        async with asyncio.timeout(2):
            while not any(s.link.closing for s in gateway.registry.sessions):
                await asyncio.sleep(0)
        assert await reader.close_code() == 4413
        await reader.close()


@on_uvloop
async def test_twice_the_bound_is_never_passed() -> None:
    link = LinkSettings(high_water=MIB, max_buffered=4 * MIB, drain_seconds=60, stall_seconds=60)
    service = FakeService()
    service.hold = True
    async with Gateway(service, WireSettings(sweep_seconds=0.02, link=link)).running() as gateway:
        peer = await deaf_peer(gateway)
        await peer.write(b"".join(generate(f"r{i}", 500) for i in range(10)))
        async with asyncio.timeout(3):
            while len(service.tickets) < 10:
                await asyncio.sleep(0)
        session = next(iter(gateway.registry.sessions))
        most = 0
        for ticket in service.tickets:
            ticket.answer()
            most = max(most, session.link.buffered)
        assert 4 * MIB < most <= 8 * MIB
        assert session.link.closing
        peer.reset()


@on_uvloop
async def test_no_pong_in_time_closes_with_1011_and_a_pong_keeps_the_connection() -> None:
    settings = WireSettings(sweep_seconds=0.02, link=LinkSettings(ping_interval=0.1, ping_timeout=0.2))
    async with Gateway(FakeService(), settings).running() as gateway:
        silent = await RawPeer.connect(gateway.port)
        await silent.upgrade("em_agent")
        await silent.write(OPEN)
        async with gateway.session() as lively:
            assert await silent.close_code() == 1011
            assert (await lively.embed())["type"] == "embedding.result"
        await silent.close()


@on_uvloop
async def test_a_peer_that_never_answers_the_close_is_dropped_after_its_time() -> None:
    settings = WireSettings(sweep_seconds=0.02, link=LinkSettings(close_seconds=0.2))
    async with Gateway(FakeService(), settings).running() as gateway:
        peer = await RawPeer.connect(gateway.port)
        await peer.upgrade("em_agent")
        await peer.write(OPEN + OPEN)
        assert await peer.close_code() == 4409
        assert await gone(gateway, 2) < 2
        assert await peer.ended()
        await peer.close()
