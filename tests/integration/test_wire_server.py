from __future__ import annotations

import asyncio
import signal

import httpx2 as httpx
import pytest

from gateway.server import listen
from tests.unit.wire.fake_service import KEY, FakeService
from tests.unit.wire.harness import QUICK, Gateway


async def test_signals_are_left_to_whoever_runs_the_server() -> None:
    before = signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)
    async with Gateway(FakeService(), QUICK).running():
        assert (signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)) == before
    assert (signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)) == before


async def test_stopping_answers_what_is_in_flight_over_both_protocols_and_then_listens_no_more() -> None:
    service = FakeService()
    service.hold = True
    gateway = Gateway(service, QUICK)
    async with gateway.running(), gateway.session() as client, httpx.AsyncClient(trust_env=False) as http:
        await client.send({"type": "embedding.generate", "id": "ws", "input": "a"})
        asking = asyncio.create_task(
            http.post(
                f"http://127.0.0.1:{gateway.port}/v1/embeddings",
                json={"input": "a"},
                headers={"authorization": f"Bearer {KEY}"},
            )
        )
        while len(service.tickets) < 2:
            service.arrived.clear()
            await service.arrived.wait()
        gateway.stop.set()
        assert (await client.receive())["type"] == "server.draining"
        for ticket in service.tickets:
            ticket.answer()
        assert (await client.receive())["type"] == "embedding.result"
        assert await client.closed() == 1012
        assert (await asking).status_code == 200
    with pytest.raises(OSError, match=r"refused|Connect call failed"):
        await asyncio.open_connection("127.0.0.1", gateway.port)


async def test_a_taken_port_is_refused_at_once() -> None:
    first = listen("127.0.0.1", 0)
    with pytest.raises(OSError, match="in use"):
        listen("127.0.0.1", first.getsockname()[1])
    first.close()


async def test_the_date_header_is_there_and_no_server_header() -> None:
    async with Gateway(FakeService(), QUICK).running() as gateway, httpx.AsyncClient(trust_env=False) as http:
        answer = await http.get(f"http://127.0.0.1:{gateway.port}/healthz")
    assert "date" in answer.headers
    assert "server" not in answer.headers
