"""WebSocket frames (RFC 6455) as functions over bytes: a reader of client frames and the header of a server frame. No I/O.

Sizes are judged by the frame header, before any payload is kept. Server frames are never masked, fragmented or compressed.
"""

from __future__ import annotations

from struct import Struct
from typing import Protocol

try:
    from websockets.speedups import apply_mask
except ImportError:  # a build of websockets without its C extension
    from websockets.utils import apply_mask

_SHORT = Struct("!BBH").pack
_LONG = Struct("!BBQ").pack

CONT, TEXT, BINARY, CLOSE, PING, PONG = 0x0, 0x1, 0x2, 0x8, 0x9, 0xA
_FIN = 0x80
_FINAL_BINARY = _FIN | BINARY
_VIEW_FROM = 1 << 16
"""Payloads from this size on are unmasked from a view: one copy less of a large message."""


def frame(opcode: int, payload: bytes) -> bytes:
    """A whole server frame."""
    return header(opcode, len(payload)) + payload


def header(opcode: int, length: int) -> bytes:
    """The header of an unfragmented server frame of `length` payload bytes."""
    if length < 126:
        return bytes((_FIN | opcode, length))
    if length < 65536:
        return _SHORT(_FIN | opcode, 126, length)
    return _LONG(_FIN | opcode, 127, length)


def close_payload(code: int, reason: str) -> bytes:
    """The payload of a close frame; the reason is cut to the 123 bytes there is room for."""
    return code.to_bytes(2, "big") + reason.encode()[:123].decode(errors="ignore").encode()


class FrameHandler(Protocol):
    """Receives what a `FrameReader` reads. A handler may stop the reader from inside any of these."""

    def on_binary(self, payload: bytes) -> None:
        """A whole binary message."""
        ...

    def on_text(self) -> None:
        """A text frame, or the first fragment of a text message; its payload is dropped."""
        ...

    def on_ping(self, payload: bytes) -> None:
        """A ping to be answered."""
        ...

    def on_pong(self, payload: bytes) -> None:
        """A pong."""
        ...

    def on_close(self, code: int) -> None:
        """The peer's close frame; 1005 when it named no code. Nothing follows it."""
        ...

    def on_violation(self, code: int, reason: str) -> None:
        """The peer broke the protocol (1002), sent bad UTF-8 (1007) or too much (1009). The reader has stopped."""
        ...


class FrameReader:
    """Cuts a byte stream into the frames of one client and gives them to `handler`.

    `max_size` bounds a message (all fragments together), in bytes; it may be changed between messages. What is kept between
    calls of `feed` is less than one frame and the fragments of one message, so never more than `max_size` and a header.
    """

    __slots__ = ("_buffer", "_fragments", "_handler", "_need", "_stopped", "_text", "max_size")

    def __init__(self, handler: FrameHandler, max_size: int) -> None:
        self._handler = handler
        self.max_size = max_size
        self._buffer = bytearray()
        self._need = 0
        self._fragments: bytearray | None = None
        self._text = False
        self._stopped = False

    def stop(self) -> None:
        """Discard everything from here on."""
        self._stopped = True
        self._buffer = bytearray()
        self._fragments = None

    def feed(self, data: bytes | bytearray) -> None:
        """Take bytes as they come from the socket and call the handler for each whole frame among them."""
        if not self._stopped:
            self._consume(data)

    def _consume(self, data: bytes | bytearray) -> None:
        if self._buffer:
            self._buffer += data
            if len(self._buffer) < self._need:
                return
            data, self._buffer = self._buffer, bytearray()
        at, end, need = 0, len(data), 2
        while end - at >= 2:
            first, length, body = data[at], data[at + 1] & 0x7F, at + 2
            if length == 126:
                need = 4
                if end - at < need:
                    break
                length, body = int.from_bytes(data[body : body + 2], "big"), body + 2
            elif length == 127:
                need = 10
                if end - at < need:
                    break
                length, body = int.from_bytes(data[body : body + 8], "big"), body + 8
            plain = first == _FINAL_BINARY and self._fragments is None
            if not self._allowed(first, length, masked=data[at + 1] >= 0x80, plain=plain):
                return
            stop = body + 4 + length
            if stop > end:
                need = stop - at
                break
            if length < _VIEW_FROM:
                payload = apply_mask(data[body + 4 : stop], data[body : body + 4])
            else:
                with memoryview(data) as whole, whole[body + 4 : stop] as masked:
                    payload = apply_mask(masked, data[body : body + 4])
            at, need = stop, 2
            if plain:
                self._handler.on_binary(payload)
            else:
                self._take(first, payload)
            if self._stopped:
                return
        if at < end:
            self._buffer += data[at:]
            self._need = need

    def _allowed(self, first: int, length: int, *, masked: bool, plain: bool) -> bool:
        """Judge a frame by its header; False after telling the handler."""
        if not masked:
            return self._violation(1002, "frames of a client must be masked")
        if plain:
            return length <= self.max_size or self._too_big()
        opcode = first & 0x0F
        if first & 0x70:
            return self._violation(1002, "reserved bits must be 0: no extension was agreed on")
        if opcode in (CLOSE, PING, PONG):
            if length > 125 or not first & _FIN:
                return self._violation(1002, "a control frame must be final and at most 125 bytes")
            return True
        if opcode not in (CONT, TEXT, BINARY):
            return self._violation(1002, "unknown opcode")
        if (opcode == CONT) != (self._fragments is not None):
            return self._violation(1002, "a continuation frame is expected after a fragment, and only there")
        kept = len(self._fragments) if self._fragments is not None else 0
        return kept + length <= self.max_size or self._too_big()

    def _take(self, first: int, payload: bytes) -> None:
        """Handle a frame that is not a whole binary message."""
        opcode, final = first & 0x0F, bool(first & _FIN)
        if opcode == PING:
            self._handler.on_ping(payload)
        elif opcode == PONG:
            self._handler.on_pong(payload)
        elif opcode == CLOSE:
            self._take_close(payload)
        elif opcode == CONT:
            assert self._fragments is not None
            if not self._text:
                self._fragments += payload
            if final:
                whole, self._fragments = bytes(self._fragments), None
                if not self._text:
                    self._handler.on_binary(whole)
                self._text = False
        else:
            self._text = opcode == TEXT and not final
            if not final:
                self._fragments = bytearray() if self._text else bytearray(payload)
            if opcode == TEXT:
                self._handler.on_text()

    def _take_close(self, payload: bytes) -> None:
        self.stop()
        if not payload:
            self._handler.on_close(1005)
            return
        code = int.from_bytes(payload[:2], "big")
        if len(payload) < 2 or not (1000 <= code <= 1003 or 1007 <= code <= 1014 or 3000 <= code < 5000):
            self._violation(1002, "invalid close code")
            return
        try:
            payload[2:].decode()
        except UnicodeDecodeError:
            self._violation(1007, "the reason of a close frame must be UTF-8")
            return
        self._handler.on_close(code)

    def _too_big(self) -> bool:
        return self._violation(1009, f"a message may have at most {self.max_size} bytes")

    def _violation(self, code: int, reason: str) -> bool:
        self.stop()
        self._handler.on_violation(code, reason)
        return False
