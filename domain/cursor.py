"""Cursors: a place in one log, opaque to whoever holds it.

A cursor is 28 characters of base64url over 21 bytes: the layout's version (2), a tag of the log's incarnation (4), and one block of
AES-128 (16) over the position (8, big endian) and zeros (8) under a key derived from the incarnation. So a cursor tells neither the
position, nor how far two cursors are apart, nor the incarnation to whoever does not know the latter, and no altered one is taken. The
same place has always the same cursor. It stands behind the event at its position: reading goes on after it.
"""

from __future__ import annotations

import binascii
from functools import lru_cache
from hashlib import blake2b
from uuid import UUID

from cryptography.hazmat.primitives.ciphers import Cipher, CipherContext
from cryptography.hazmat.primitives.ciphers.algorithms import AES
from cryptography.hazmat.primitives.ciphers.modes import ECB

from domain.errors import GatewayError

_VERSION = 2
_LENGTH = 28
_ZEROS = bytes(8)
_TO_URL, _FROM_URL = bytes.maketrans(b"+/", b"-_"), bytes.maketrans(b"-_+/", b"+/\xff\xff")
START = "start"
"""What stands for the beginning of the log where a cursor is taken."""


class _Seal:
    """The head of every cursor of one log, and its cipher in both directions. Not for several threads at once."""

    def __init__(self, incarnation: UUID) -> None:
        raw = incarnation.bytes
        self.head = bytes([_VERSION]) + blake2b(raw, digest_size=4, person=b"cursor tag").digest()
        # One block a cursor, each with a position of its own: the mode has nothing to hide between blocks.
        cipher = Cipher(AES(blake2b(raw, digest_size=16, person=b"cursor key").digest()), ECB())  # noqa: S305
        self.encrypt: CipherContext = cipher.encryptor()
        self.decrypt: CipherContext = cipher.decryptor()


# A process reads one log; a restore under way or a test adds a few.
_seal_of = lru_cache(maxsize=16)(_Seal)


def encode_cursor(incarnation: UUID, position: int) -> str:
    """The cursor behind `position` of the log with this incarnation."""
    seal = _seal_of(incarnation)
    raw = seal.head + seal.encrypt.update(position.to_bytes(8, "big") + _ZEROS)
    return binascii.b2a_base64(raw, newline=False).translate(_TO_URL).decode()


def decode_cursor(cursor: str, incarnation: UUID, head: int) -> int:
    """The position to read after. `head` is the log's newest position.

    Raises `invalid_cursor`: malformed, of another log (or of this one before it was restored), or ahead of the log.
    """
    try:
        raw = binascii.a2b_base64(cursor.encode("ascii").translate(_FROM_URL), strict_mode=True)
    except ValueError:
        raw = b""
    if len(cursor) != _LENGTH or len(raw) != 21 or raw[0] != _VERSION:
        raise _malformed()
    seal = _seal_of(incarnation)
    if raw[:5] != seal.head:
        raise _invalid(
            "this cursor belongs to another log, or to this one before it was restored: start from the beginning, or from a cursor "
            "received since; event ids tell what is known already"
        )
    block = seal.decrypt.update(raw[5:])
    if block[8:] != _ZEROS:
        raise _malformed()
    position = int.from_bytes(block[:8], "big")
    if position > head:
        raise _invalid("this cursor is ahead of the log: start from the beginning, or from a cursor of this log")
    return position


def _malformed() -> GatewayError:
    return _invalid("this is not a cursor: send one exactly as it was received, or start from the beginning")


def _invalid(message: str) -> GatewayError:
    return GatewayError("invalid_cursor", message, details={"field": "cursor"})
