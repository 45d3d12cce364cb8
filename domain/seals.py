"""The seals of the log: a hash chain over its events, ten thousand at a time, made beside the appends.

`emberlog.seal_hash` in the migrations is the same in SQL and describes what is hashed.
"""

from __future__ import annotations

import hashlib
from uuid import UUID

import msgspec

SEAL_EVENTS = 10_000
"""The most events of one seal."""
MARK_BYTES = 4
"""How much of each event's content hash a seal keeps, to tell which of its events was rewritten."""


class SealedRange(msgspec.Struct, frozen=True):
    """A seal as it is shown: its number (1..N), the events it covers, and its hash, which stands for all events up to its last."""

    number: int
    first_position: int
    last_position: int
    hash: bytes

    def document(self) -> dict[str, int | str]:
        """As JSON; the hash in hex."""
        return {
            "number": self.number,
            "first_position": self.first_position,
            "last_position": self.last_position,
            "hash": self.hash.hex(),
        }


class Seal(msgspec.Struct, frozen=True):
    """A seal as it is stored. `sealed_at` is microseconds since 1970 UTC; `marks` is empty where it was not read."""

    number: int
    first_position: int
    last_position: int
    sealed_at: int
    previous: bytes
    events_hash: bytes
    hash: bytes
    marks: bytes = b""

    def computed_hash(self) -> bytes:
        """What `hash` is unless the seal was changed."""
        numbers = (self.first_position, self.last_position, self.sealed_at)
        packed = b"".join(number.to_bytes(8, "big", signed=True) for number in numbers)
        return hashlib.sha256(self.previous + packed + self.events_hash).digest()


def chain_start(installation: UUID) -> bytes:
    """What the first seal has as `previous`: it binds the chain to its installation."""
    return hashlib.sha256(installation.bytes).digest()
