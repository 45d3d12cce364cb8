"""Dedupe keys and event ids of requests: derived, so that every process that speaks of the same attempt names it alike.

A dedupe key is 16 bytes of BLAKE2b over (tenant, request id, attempt, kind): the first event of a kind wins. An event id adds the
time of the attempt's `requested`, so that a request id used again after the dedupe window yields new event ids.
"""

from __future__ import annotations

from hashlib import blake2b

REQUESTED = b"requested"
OUTCOME = b"outcome"
REEMBEDDED = b"reembedded"


def request_key(tenant: str, request_id: str, attempt: int, kind: bytes) -> bytes:
    """The dedupe key of an attempt's `requested` or outcome event, or of the n-th re-embedding (`attempt` = n)."""
    return blake2b(f"{tenant}\0{request_id}\0{attempt}".encode(), digest_size=16, person=kind).digest()


def event_id(key: bytes, requested_at: int) -> bytes:
    """A UUID (version 8 layout) from a dedupe key and the time of the attempt's `requested`, microseconds since the epoch."""
    raw = bytearray(
        blake2b(key + requested_at.to_bytes(8, "big", signed=True), digest_size=16, person=b"event").digest()
    )
    raw[6] = raw[6] & 0x0F | 0x80
    raw[8] = raw[8] & 0x3F | 0x80
    return bytes(raw)
