"""uvicorn's HTTP protocol with bounds it lacks: on a request's head, in bytes and time, and on how long a peer may not read."""

from __future__ import annotations

import asyncio

from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol

from domain.errors import GatewayError
from gateway.http.answers import error_answer

HEAD_BYTES = 64 * 1024
HEAD_SECONDS = 10.0
READ_SECONDS = 30.0
"""A client that has not taken what is buffered for it (at most one part of an answer) within this is dropped."""


class HttpProtocol(HttpToolsProtocol):
    """One HTTP connection, until it is upgraded."""

    _in_head = True
    _head_bytes = 0
    _head_timer: asyncio.TimerHandle | None = None
    _read_timer: asyncio.TimerHandle | None = None
    _refused = False

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as in the base class
        """A client connected; its first request's head is due."""
        super().connection_made(transport)
        self._arm()

    def connection_lost(self, exc: Exception | None) -> None:
        """The client is gone."""
        self._disarm()
        self._stop_read_timer()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Bytes from the client. The parser keeps an unfinished head, so what has come of it is counted here."""
        if self._refused:
            return
        super().data_received(data)
        if self._in_head:
            self._head_bytes += len(data)
            if self._head_bytes > HEAD_BYTES:
                message = f"the request's head is over {HEAD_BYTES} bytes: send fewer or shorter headers"
                self._answer(431, GatewayError("invalid_request", message))

    def on_message_begin(self) -> None:
        """A request begins."""
        self._head_bytes = 0
        self._in_head = True
        self._arm()
        super().on_message_begin()

    def on_headers_complete(self) -> None:
        """The head is whole."""
        self._in_head = False
        self._disarm()
        if not self._refused:
            super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        """A part of the body."""
        if not self._refused:
            super().on_body(body)

    def on_message_complete(self) -> None:
        """The request is whole."""
        if not self._refused:
            super().on_message_complete()

    def handle_websocket_upgrade(self) -> None:
        """The connection leaves HTTP."""
        self._disarm()
        if not self._refused:
            super().handle_websocket_upgrade()

    def pause_writing(self) -> None:
        """The client takes less than we send."""
        super().pause_writing()
        if self._read_timer is None:
            self._read_timer = self.loop.call_later(READ_SECONDS, self.transport.abort)

    def resume_writing(self) -> None:
        """The client has caught up."""
        super().resume_writing()
        self._stop_read_timer()

    def timeout_keep_alive_handler(self) -> None:
        """An idle connection ends; one whose last answer was never taken would wait for that for ever."""
        if self.transport.get_write_buffer_size():
            self.transport.abort()
        else:
            super().timeout_keep_alive_handler()

    def _stop_read_timer(self) -> None:
        if self._read_timer is not None:
            self._read_timer.cancel()
            self._read_timer = None

    def send_400_response(self, msg: str) -> None:
        """Refuse what is not HTTP."""
        self._answer(400, GatewayError("invalid_request", "this is not an HTTP/1.1 request that can be read"))

    def _answer(self, status: int, error: GatewayError) -> None:
        if self._refused:
            return
        self._refused = True
        code, headers, body = error_answer(error, status=status)
        lines = b"".join(name + b": " + value + b"\r\n" for name, value in headers)
        self.transport.write(STATUS_LINE[code] + lines + b"connection: close\r\n\r\n" + body)
        self.transport.close()

    def _arm(self) -> None:
        if self._head_timer is None:
            self._head_timer = self.loop.call_later(HEAD_SECONDS, self._late)

    def _disarm(self) -> None:
        if self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None

    def _late(self) -> None:
        self._head_timer = None
        self._answer(
            408, GatewayError("invalid_request", f"the request's head did not arrive within {HEAD_SECONDS:.0f} s")
        )
