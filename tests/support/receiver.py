"""A webhook's receiver: a real HTTP server on this machine that keeps what it was sent and answers as it is told."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from aiohttp import web


@dataclass
class Message:
    """What was sent."""

    path: str
    headers: dict[str, str]
    body: bytes
    connection: int


@dataclass
class Receiver:
    """`answer` decides what a message is told; `messages` are those that came, `arrived` is set with each."""

    url: str = ""
    messages: list[Message] = field(default_factory=list)
    answer: Callable[[Message], web.StreamResponse] = lambda _: web.Response()
    arrived: asyncio.Condition = field(default_factory=asyncio.Condition)
    hold: asyncio.Event | None = None

    async def handle(self, request: web.Request) -> web.StreamResponse:
        message = Message(
            request.path_qs,
            {k.lower(): v for k, v in request.headers.items()},
            await request.read(),
            id(request.transport),
        )
        self.messages.append(message)
        async with self.arrived:
            self.arrived.notify_all()
        if self.hold is not None:
            await self.hold.wait()
        return self.answer(message)

    async def has(self, count: int) -> list[Message]:
        """Wait for so many messages."""
        async with asyncio.timeout(20), self.arrived:
            await self.arrived.wait_for(lambda: len(self.messages) >= count)
        return self.messages


@asynccontextmanager
async def receiver(tls: ssl.SSLContext | None = None) -> AsyncIterator[Receiver]:
    """One that listens on a port of its own, over TLS where a context is given."""
    made = Receiver()
    application = web.Application()
    application.router.add_route("*", "/{tail:.*}", made.handle)
    runner = web.AppRunner(application, handle_signals=False, shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0, ssl_context=tls)
    await site.start()
    host, port = runner.addresses[0][:2]
    made.url = f"{'http' if tls is None else 'https'}://{host}:{port}/hooks?a=1"
    try:
        yield made
    finally:
        if made.hold is not None:
            made.hold.set()
        await runner.cleanup()
