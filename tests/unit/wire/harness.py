"""A real server on a real socket in the test's loop, and clients that speak with the independent codec `msgpack`."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Any

import msgpack
from prometheus_client import CollectorRegistry
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed

from gateway.app import build_app
from gateway.server import Server, listen
from gateway.wire.link import LinkSettings
from gateway.wire.sessions import SessionRegistry, WireSettings
from tests.unit.wire.fake_service import KEY, FakeService

SUBPROTOCOL = "emberlog.v1.msgpack"
QUICK = WireSettings(
    sweep_seconds=0.02, link=LinkSettings(stall_seconds=0.5, slow_close_seconds=0.2, close_seconds=0.5)
)


class Gateway:
    """The server under test."""

    def __init__(self, service: FakeService, settings: WireSettings, **server: Any) -> None:
        self.service = service
        self.registry = SessionRegistry(service, settings)
        self.metrics = CollectorRegistry()
        self.app = build_app(service, self.metrics, self.registry)
        self.server = Server(self.app, shutdown_seconds=1, **server)
        self.socket = listen("127.0.0.1", 0)
        self.port: int = self.socket.getsockname()[1]
        self.stop = asyncio.Event()

    @property
    def url(self) -> str:
        return f"ws://127.0.0.1:{self.port}/v1/agent"

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[Gateway]:
        ready = asyncio.Event()
        task = asyncio.create_task(
            self.server.serve_until(self.stop, [self.socket], drain=lambda: self.registry.drain(1), ready=ready.set)
        )
        waiting = asyncio.create_task(ready.wait())
        await asyncio.wait((task, waiting), return_when=asyncio.FIRST_COMPLETED)
        waiting.cancel()
        try:
            yield self
        finally:
            self.stop.set()
            await task

    @contextlib.asynccontextmanager
    async def client(self, key: str | None = KEY, **options: Any) -> AsyncIterator[Client]:
        headers = {"Authorization": f"Bearer {key}"} if key is not None else {}
        options.setdefault("subprotocols", [SUBPROTOCOL])
        async with connect(
            self.url,
            additional_headers=headers,
            compression=None,
            max_size=None,
            proxy=None,
            ping_interval=None,
            **options,
        ) as connection:
            yield Client(connection)

    @contextlib.asynccontextmanager
    async def session(self, key: str = KEY, agent: str = "a1") -> AsyncIterator[Client]:
        """A client whose session is open."""
        async with self.client(key) as client:
            await client.open(agent)
            yield client


class Client:
    """One connection."""

    def __init__(self, connection: ClientConnection) -> None:
        self.connection = connection

    async def send(self, message: Any) -> None:
        await self.connection.send(
            message if isinstance(message, bytes) else msgpack.packb(message, unicode_errors="surrogatepass")
        )

    async def receive(self) -> dict[str, Any]:
        async with asyncio.timeout(5):
            frame = await self.connection.recv()
        assert isinstance(frame, bytes)
        message = msgpack.unpackb(frame)
        assert isinstance(message, dict)
        return message

    async def ask(self, message: Any) -> dict[str, Any]:
        await self.send(message)
        return await self.receive()

    async def open(self, agent: str = "a1", **fields: Any) -> dict[str, Any]:
        answer = await self.ask({"type": "session.open", "id": "open", "agent": {"id": agent}, **fields})
        assert answer["type"] == "session.opened", answer
        return answer

    async def embed(self, request_id: str = "r1", text: Any = "hello", **fields: Any) -> dict[str, Any]:
        return await self.ask({"type": "embedding.generate", "id": request_id, "input": text, **fields})

    async def closed(self, within: float = 5) -> int:
        """The close code, once the connection is closed; messages before it are dropped."""
        async with asyncio.timeout(within):
            try:
                while True:
                    await self.connection.recv()
            except ConnectionClosed as closed:
                return closed.rcvd.code if closed.rcvd is not None else 1006
