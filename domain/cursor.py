"""Cursors: a place in one log, opaque to whoever holds it.

A cursor is 34 characters of base64url (no padding) over 25 bytes: the layout's version (1), the log's incarnation, the position (big
endian). It stands behind the event at that position: reading goes on after it.
"""

from __future__ import annotations

import base64
import binascii
from uuid import UUID

from domain.errors import GatewayError

_VERSION = 1
_LENGTH = 34
START = "start"
"""What stands for the beginning of the log where a cursor is taken."""


def encode_cursor(incarnation: UUID, position: int) -> str:
    """The cursor behind `position` of the log with this incarnation."""
    raw = bytes([_VERSION]) + incarnation.bytes + position.to_bytes(8, "big")
    return base64.urlsafe_b64encode(raw).decode().rstrip("=")


def decode_cursor(cursor: str, incarnation: UUID, head: int) -> int:
    """The position to read after. `head` is the log's newest position.

    Raises `invalid_cursor`: malformed, of another log (or of this one before it was restored), or ahead of the log.
    """
    try:
        raw = base64.b64decode(cursor + "==", altchars=b"-_", validate=True)
    except (binascii.Error, ValueError):
        raw = b""
    if len(cursor) != _LENGTH or len(raw) != 25 or raw[0] != _VERSION:
        raise _invalid("this is not a cursor: send one exactly as it was received, or start from the beginning")
    if raw[1:17] != incarnation.bytes:
        raise _invalid(
            "this cursor belongs to another log, or to this one before it was restored: start from the beginning, or from a cursor "
            "received since; event ids tell what is known already"
        )
    position = int.from_bytes(raw[17:], "big")
    if cursor != encode_cursor(incarnation, position):
        raise _invalid("this is not a cursor: send one exactly as it was received, or start from the beginning")
    if position > head:
        raise _invalid("this cursor is ahead of the log: start from the beginning, or from a cursor of this log")
    return position


def _invalid(message: str) -> GatewayError:
    return GatewayError("invalid_cursor", message, details={"field": "cursor"})
