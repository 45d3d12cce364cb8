"""A server of key sets on this machine, that answers as a test tells it: right, wrong, slowly or never."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

Respond = Callable[[asyncio.StreamWriter], Awaitable[None]]


def answer(body: bytes, *, status: str = "200 OK", headers: str = "", chunked: bool = False) -> Respond:
    """One whole answer."""

    async def respond(writer: asyncio.StreamWriter) -> None:
        if chunked:
            parts = [body[:7], body[7:]]
            framed = b"".join(b"%x\r\n%b\r\n" % (len(part), part) for part in parts) + b"0\r\n\r\n"
            writer.write(f"HTTP/1.1 {status}\r\ntransfer-encoding: chunked\r\n{headers}\r\n".encode() + framed)
        else:
            writer.write(f"HTTP/1.1 {status}\r\ncontent-length: {len(body)}\r\n{headers}\r\n".encode() + body)

    return respond


def raw(data: bytes) -> Respond:
    """These bytes, and then the end of the connection."""

    async def respond(writer: asyncio.StreamWriter) -> None:
        writer.write(data)

    return respond


async def silence(writer: asyncio.StreamWriter) -> None:
    """No answer while the connection lasts."""
    await asyncio.Event().wait()


async def flood(writer: asyncio.StreamWriter) -> None:
    """A body without an end."""
    writer.write(b"HTTP/1.1 200 OK\r\n\r\n")
    while True:
        writer.write(b" " * 65536)
        await writer.drain()


async def endless_headers(writer: asyncio.StreamWriter) -> None:
    """Headers without an end."""
    writer.write(b"HTTP/1.1 200 OK\r\n")
    while True:
        writer.write(b"x-filler: " + b"x" * 60 + b"\r\n")
        await writer.drain()


class KeyServer:
    """`respond` answers whatever is asked; `requests` are the heads of the requests that came."""

    def __init__(self, scheme: str) -> None:
        self.scheme = scheme
        self.respond: Respond = silence
        self.requests: list[bytes] = []
        self.arrived = asyncio.Event()
        self.port = 0

    @property
    def url(self) -> str:
        return f"{self.scheme}://127.0.0.1:{self.port}/keys?v=1"

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            self.requests.append(await reader.readuntil(b"\r\n\r\n"))
            self.arrived.set()
            await self.respond(writer)
            await writer.drain()
        except (ConnectionError, asyncio.CancelledError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()


@asynccontextmanager
async def key_server(tls: ssl.SSLContext | None = None) -> AsyncIterator[KeyServer]:
    """One that listens on a port of its own until the test is done."""
    made = KeyServer("http" if tls is None else "https")
    handlers: set[asyncio.Task[None]] = set()

    def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.get_running_loop().create_task(made.serve(reader, writer))
        handlers.add(task)
        task.add_done_callback(handlers.discard)

    server = await asyncio.start_server(accept, "127.0.0.1", 0, ssl=tls)
    made.port = server.sockets[0].getsockname()[1]
    try:
        yield made
    finally:
        server.close()
        for task in handlers.copy():
            task.cancel()
        await asyncio.gather(*handlers)
        await server.wait_closed()
