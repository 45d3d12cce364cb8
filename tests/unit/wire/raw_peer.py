"""A peer on a bare socket, for what no well-behaved client library would do."""

from __future__ import annotations

import asyncio
import socket
import struct

UPGRADE = (
    b"GET /v1/agent HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Protocol: emberlog.v1.msgpack\r\n"
)


def masked_frame(first: int, payload: bytes) -> bytes:
    """A client frame with an all-zero mask."""
    if len(payload) < 126:
        head = bytes((first, 0x80 | len(payload)))
    elif len(payload) < 65536:
        head = struct.pack("!BBH", first, 0xFE, len(payload))
    else:
        head = struct.pack("!BBQ", first, 0xFF, len(payload))
    return head + b"\0\0\0\0" + payload


class RawPeer:
    """Reads only when asked to. `receive_buffer` keeps the kernel from reading on its behalf."""

    def __init__(self, raw: socket.socket) -> None:
        self.raw = raw
        self._loop = asyncio.get_running_loop()
        self._read = bytearray()

    @classmethod
    async def connect(cls, port: int, receive_buffer: int | None = None) -> RawPeer:
        raw = socket.socket()
        raw.setblocking(False)
        if receive_buffer is not None:
            raw.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        await asyncio.get_running_loop().sock_connect(raw, ("127.0.0.1", port))
        return cls(raw)

    async def write(self, data: bytes) -> None:
        async with asyncio.timeout(5):
            await self._loop.sock_sendall(self.raw, data)

    async def upgrade(self, key: str | None) -> None:
        credential = b"" if key is None else f"Authorization: Bearer {key}\r\n".encode()
        await self.write(UPGRADE + credential + b"\r\n")
        while b"\r\n\r\n" not in self._read:
            await self._more()
        assert b" 101 " in self._read, bytes(self._read)
        del self._read[: self._read.index(b"\r\n\r\n") + 4]

    async def status_line(self) -> bytes:
        while b"\r\n" not in self._read:
            await self._more()
        return bytes(self._read[: self._read.index(b"\r\n")])

    async def frame(self) -> tuple[int, bytes]:
        """The next server frame: its first byte and its payload."""
        await self._need(2)
        size, at = self._read[1], 2
        if size == 126:
            await self._need(4)
            size, at = int.from_bytes(self._read[2:4], "big"), 4
        elif size == 127:
            await self._need(10)
            size, at = int.from_bytes(self._read[2:10], "big"), 10
        await self._need(at + size)
        first, payload = self._read[0], bytes(self._read[at : at + size])
        del self._read[: at + size]
        return first, payload

    async def close_code(self) -> int:
        """The code of the server's close frame; other frames before it are dropped."""
        while True:
            first, payload = await self.frame()
            if first == 0x88:
                return int.from_bytes(payload[:2], "big")

    async def ended(self) -> bool:
        """Whether the connection ends, in order or not; everything before the end is dropped."""
        try:
            while True:
                await self._more()
        except (ConnectionError, EOFError):
            return True

    async def _need(self, size: int) -> None:
        while len(self._read) < size:
            await self._more()

    async def _more(self) -> None:
        async with asyncio.timeout(5):
            data = await self._loop.sock_recv(self.raw, 1 << 16)
        if not data:
            raise EOFError
        self._read += data

    async def close(self) -> None:
        self.raw.close()

    def reset(self) -> None:
        """Vanish without a word."""
        self.raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.raw.close()
