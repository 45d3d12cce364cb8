"""A bare WebSocket peer with the independent codec `msgpack`: for what our client would never do, or would hide."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from collections.abc import AsyncIterator, Callable
from typing import Any

import msgpack
import numpy as np
from numpy.typing import NDArray
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed
from websockets.typing import Subprotocol

from tests.acceptance.provider import DIMENSIONS, MODEL

Message = dict[str, Any]
PATIENCE = 20.0
"""Seconds that a peer waits for what must come."""


class Peer:
    """One connection. Messages are kept as they come; the waiting methods take the first one that fits out of them."""

    def __init__(self, connection: ClientConnection) -> None:
        self.connection = connection
        self.close_code: int | None = None
        self._inbox: list[Message] = []
        self._news = asyncio.Condition()
        self._reader = asyncio.create_task(self._read())

    async def _read(self) -> None:
        code = 1006
        try:
            async for frame in self.connection:
                assert isinstance(frame, bytes)
                async with self._news:
                    self._inbox.append(msgpack.unpackb(frame))
                    self._news.notify_all()
        except ConnectionClosed:
            pass
        if self.connection.close_code is not None:
            code = self.connection.close_code
        async with self._news:
            self.close_code = code
            self._news.notify_all()

    async def send(self, message: Message | bytes) -> None:
        """Send a map, or bytes as they are."""
        await self.connection.send(message if isinstance(message, bytes) else msgpack.packb(message))

    async def take(self, fits: Callable[[Message], bool], within: float = PATIENCE) -> Message:
        """The first message that fits, waiting for it."""

        def found() -> Message | None:
            return next((m for m in self._inbox if fits(m)), None)

        async with asyncio.timeout(within), self._news:
            await self._news.wait_for(lambda: found() is not None or self.close_code is not None)
            message = found()
            if message is None:
                raise ConnectionError(f"the connection was closed with {self.close_code} before the message came")
            self._inbox.remove(message)
            return message

    async def answer(self, request_id: str, within: float = PATIENCE) -> Message:
        """The outcome of a request: its result or its error."""
        return await self.take(
            lambda m: m.get("id") == request_id and m["type"] in ("embedding.result", "error"), within
        )

    async def begin(self, request_id: str, texts: str | list[str], **fields: Any) -> None:
        """Send a request without waiting for its answer."""
        await self.send({
            "type": "embedding.generate", "id": request_id, "input": texts, "model": MODEL, "dimensions": DIMENSIONS, **fields,
        })  # fmt: skip

    async def embed(self, request_id: str, texts: str | list[str], **fields: Any) -> Message:
        """Send a request and wait for its outcome."""
        await self.begin(request_id, texts, **fields)
        return await self.answer(request_id)

    async def closed(self, within: float = PATIENCE) -> int:
        """The close code, once the connection is closed."""
        async with asyncio.timeout(within), self._news:
            await self._news.wait_for(lambda: self.close_code is not None)
        assert self.close_code is not None
        return self.close_code

    async def leave(self) -> None:
        """Close the connection."""
        await self.connection.close()
        await self._reader


@contextlib.asynccontextmanager
async def session(url: str, key: str, agent: str = "peer", *, tls: ssl.SSLContext | None = None) -> AsyncIterator[Peer]:
    """A peer whose session is open. `url` is the gateway's http(s) address."""
    connection = await connect(
        f"ws{url.removeprefix('http')}/v1/agent",
        subprotocols=[Subprotocol("emberlog.v1.msgpack")],
        additional_headers={"Authorization": f"Bearer {key}"},
        compression=None, max_size=None, proxy=None, ssl=tls,
    )  # fmt: skip
    peer = Peer(connection)
    try:
        await peer.send({"type": "session.open", "id": "open", "agent": {"id": agent}})
        opened = await peer.take(lambda m: m.get("id") == "open")
        assert opened["type"] == "session.opened", opened
        yield peer
    finally:
        await peer.leave()


def rows_of(answer: Message) -> NDArray[np.float32]:
    """The vectors of an answer in float32, shape (count, dimensions)."""
    assert answer["type"] == "embedding.result", answer
    return np.frombuffer(answer["vectors"], dtype="<f4").reshape(answer["count"], answer["dimensions"])
