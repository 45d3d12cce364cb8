"""One simulated agent: a WebSocket connection that costs next to nothing, so that what is measured is the gateway.

A WebSocket client of its own kind: it masks with zeros (a server unmasks all the same), takes unfragmented binary frames without
copying them, and decodes only the fields that it checks.
"""

from __future__ import annotations

import asyncio
import base64
import os
import struct
from collections.abc import Callable
from typing import Protocol, cast

import msgspec

SUBPROTOCOL = "emberlog.v1.msgpack"

_BINARY, _CLOSE, _PING, _PONG = 0x82, 0x88, 0x89, 0x8A
_u16 = struct.Struct(">H")
_u64 = struct.Struct(">Q")


class Timings(msgspec.Struct, gc=False):
    """Where the gateway says that the time went, in milliseconds."""

    queue_ms: float = 0.0
    provider_ms: float = 0.0
    total_ms: float = 0.0


class Message(msgspec.Struct, gc=False):
    """What the load generator looks at in a message from the gateway. `vectors` is a view that lives as long as the callback."""

    type: str
    id: str = ""
    count: int = 0
    dimensions: int = 0
    vectors: memoryview | None = None
    code: str = ""
    timings: Timings | None = None


class Handler(Protocol):
    """Who is told what happens on a connection."""

    def opened(self, agent: Agent) -> None:
        """The session is open."""

    def received(self, agent: Agent, message: Message) -> None:
        """A message came; its `vectors` must not be kept."""

    def lost(self, agent: Agent, reason: str) -> None:
        """The connection is gone, or was refused."""


_decode = msgspec.msgpack.Decoder(Message).decode
_encode = msgspec.msgpack.Encoder().encode


def frame(payload: bytes, opcode: int = _BINARY) -> bytes:
    """A client's frame, masked with zeros."""
    size = len(payload)
    if size < 126:
        return b"%c%c\0\0\0\0%b" % (opcode, 0x80 | size, payload)
    if size < 65_536:
        return b"%c\xfe%b\0\0\0\0%b" % (opcode, _u16.pack(size), payload)
    return b"%c\xff%b\0\0\0\0%b" % (opcode, _u64.pack(size), payload)


class Agent(asyncio.Protocol):
    """A connection to `/v1/agent` as the agent `name`. `close()` ends it without a word to the handler."""

    def __init__(self, handler: Handler, host: str, key: str, name: str) -> None:
        self._handler = handler
        self._host = host
        self._key = key
        self.name = name
        self._rest = b""
        self._read: Callable[[bytes], bytes] = self._read_upgrade
        self._pieces: list[bytes] = []
        self._missing = 0
        self._done = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Part of `asyncio.Protocol`."""
        self._transport = cast("asyncio.Transport", transport)
        nonce = base64.b64encode(os.urandom(16)).decode()
        self._transport.write(
            f"GET /v1/agent HTTP/1.1\r\nHost: {self._host}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
            f"Sec-WebSocket-Key: {nonce}\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Protocol: {SUBPROTOCOL}\r\n"
            f"Authorization: Bearer {self._key}\r\n\r\n".encode()
        )

    def data_received(self, data: bytes) -> None:
        """Part of `asyncio.Protocol`."""
        self._rest = self._read(self._rest + data if self._rest else data)

    def connection_lost(self, exc: Exception | None) -> None:
        """Part of `asyncio.Protocol`."""
        self._lost("connection lost")

    def send(self, payload: bytes) -> None:
        """Send one message, already encoded."""
        self._transport.write(frame(payload))

    def close(self) -> None:
        """Say goodbye and close."""
        self._done = True
        self._transport.write(frame(_u16.pack(1000), _CLOSE))
        self._transport.close()

    def _lost(self, reason: str) -> None:
        if not self._done:
            self._done = True
            self._transport.abort()
            self._handler.lost(self, reason)

    def _read_upgrade(self, data: bytes) -> bytes:
        head, end, rest = data.partition(b"\r\n\r\n")
        if not end:
            return data
        status = head.split(b" ", 2)[1].decode("latin-1")
        if status != "101":
            self._lost(f"upgrade refused: HTTP {status}")
            return b""
        self._read = self._read_frames
        self.send(_encode({"type": "session.open", "id": "open", "agent": {"id": self.name}}))
        return self._read_frames(rest)

    def _read_frames(self, data: bytes) -> bytes:
        """Handle every whole frame in `data`; returns what is left."""
        at, have = 0, len(data)
        view = memoryview(data)
        while have - at >= 2:
            size = data[at + 1]
            start = at + 2
            if size >= 126:
                start += 2 if size == 126 else 8
                if have < start:
                    break
                size = int.from_bytes(data[at + 2 : start], "big")
            if have < start + size:
                self._expect(start + size - at)
                break
            opcode = data[at]
            at = start + size
            if opcode == _BINARY:
                self._message(_decode(view[start:at]))
            elif opcode == _PING:
                self._transport.write(frame(data[start:at], _PONG))
            elif opcode == _CLOSE:
                self._lost(f"closed with {int.from_bytes(data[start : start + 2], 'big')}")
                return b""
            elif opcode != _PONG:
                self._lost(f"unexpected frame {opcode:#x}")
                return b""
        return data[at:] if at else data

    def _expect(self, size: int) -> None:
        """Gather the pieces of a large frame, so that they are joined once."""
        if size > 65_536:
            self._pieces = []
            self._missing = size
            self._read = self._gather

    def _gather(self, data: bytes) -> bytes:
        # The first piece is what `_read_frames` left over, with the next piece behind it.
        self._pieces.append(data)
        self._missing -= len(data)
        if self._missing > 0:
            return b""
        self._read = self._read_frames
        return self._read_frames(b"".join(self._pieces))

    def _message(self, message: Message) -> None:
        if message.type == "session.opened":
            self._handler.opened(self)
        else:
            self._handler.received(self, message)
