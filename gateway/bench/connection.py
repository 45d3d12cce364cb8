"""One HTTP/1.1 connection of the simulator: parsed by httptools, answered in order, keep-alive."""

from __future__ import annotations

import asyncio
import socket
import struct
from collections import deque
from collections.abc import Callable
from http import HTTPStatus
from typing import NamedTuple, cast

import httptools

_STATUS_LINES = {s.value: f"HTTP/1.1 {s.value} {s.phrase}\r\n".encode() for s in HTTPStatus}


class Answer(NamedTuple):
    """An HTTP answer: status, extra header lines (each ended by CRLF), content type and body."""

    status: int
    body: bytes
    headers: bytes = b""
    content_type: bytes = b"application/json"


class Request(NamedTuple):
    """A request, read whole. The names of headers are in lower case."""

    method: bytes
    target: bytes
    headers: dict[bytes, bytes]
    body: bytes


class HttpConnection(asyncio.Protocol):
    """Hands each request to `handle`, one at a time; the next waits until the one before it is answered."""

    def __init__(
        self,
        handle: Callable[[HttpConnection, Request], None],
        connected: Callable[[HttpConnection], None],
        disconnected: Callable[[HttpConnection], None],
    ) -> None:
        self._handle = handle
        self._connected = connected
        self._disconnected = disconnected
        self._parser = httptools.HttpRequestParser(self)
        self._queue: deque[Request] = deque()
        self._busy = False
        self._target = b""
        self._headers: dict[bytes, bytes] = {}
        self._body: list[bytes] = []
        self.closed = False
        self.in_call = False
        self.called = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Part of `asyncio.Protocol`."""
        self._transport = cast("asyncio.Transport", transport)
        self._transport.set_write_buffer_limits(high=64 * 1024 * 1024)
        self._connected(self)

    def connection_lost(self, exc: Exception | None) -> None:
        """Part of `asyncio.Protocol`."""
        self.closed = True
        self._disconnected(self)

    def data_received(self, data: bytes) -> None:
        """Part of `asyncio.Protocol`."""
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserCallbackError:
            self.abort()
            raise  # a fault of ours: the loop reports it
        except httptools.HttpParserError:
            self.abort()

    def on_url(self, url: bytes) -> None:
        """Part of httptools' protocol."""
        self._target += url

    def on_header(self, name: bytes, value: bytes) -> None:
        """Part of httptools' protocol."""
        self._headers[name.lower()] = value

    def on_body(self, body: bytes) -> None:
        """Part of httptools' protocol."""
        self._body.append(body)

    def on_message_complete(self) -> None:
        """Part of httptools' protocol."""
        request = Request(self._parser.get_method(), self._target, self._headers, b"".join(self._body))
        self._target = b""
        self._headers = {}
        self._body = []
        if self._busy:
            self._queue.append(request)
        else:
            self._busy = True
            self._handle(self, request)

    def answer(self, answer: Answer) -> None:
        """Send an answer and go on with the next request."""
        if self.closed:
            return
        self._transport.write(self._head(answer) + answer.body)
        self._busy = False
        if self._queue:
            self._busy = True
            self._handle(self, self._queue.popleft())

    def answer_half(self, answer: Answer) -> None:
        """Send the head and half of the body, and leave it at that."""
        self._transport.write(self._head(answer) + answer.body[: len(answer.body) // 2])

    def reset(self) -> None:
        """Close with a reset, once what was written is on its way."""
        peer = self._transport.get_extra_info("socket")
        # A linger time of zero turns the close into a reset, as a crashed or overloaded peer does it.
        peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.abort()

    def abort(self) -> None:
        """Close at once."""
        self._transport.abort()

    def _head(self, answer: Answer) -> bytes:
        return b"%bcontent-type: %b\r\n%bcontent-length: %d\r\n\r\n" % (
            _STATUS_LINES.get(answer.status) or b"HTTP/1.1 %d Unknown\r\n" % answer.status,
            answer.content_type,
            answer.headers,
            len(answer.body),
        )
