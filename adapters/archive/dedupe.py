"""The dedupe key of an event that is in the log already, derived from it as it was when it was appended."""

from __future__ import annotations

import binascii
from base64 import urlsafe_b64decode

import msgspec

from domain.decoding import decode_data
from domain.events import (
    EmbeddingAbandoned,
    EmbeddingFailed,
    EmbeddingGenerated,
    EmbeddingReembedded,
    EmbeddingRequested,
)
from domain.keys import OUTCOME, REEMBEDDED, REQUESTED, request_key
from domain.ports.event_log import StoredEvent
from domain.upcasters import UnknownSchema


def dedupe_key(event: StoredEvent) -> tuple[bytes, bytes | None]:
    """The key and the fingerprint: those of requests are derived from what they say; any other event's key is its id."""
    if event.type.startswith("embedding."):
        try:
            data = decode_data(event.type, event.data, event.schema_version)
        except (KeyError, UnknownSchema, msgspec.ValidationError):
            return event.event_id, None  # a newer build wrote it, and will not be asked for it here
        match data:
            case EmbeddingRequested():
                return request_key(event.tenant, data.request_id, data.attempt, REQUESTED), _bytes(data.fingerprint)
            case EmbeddingGenerated() | EmbeddingFailed() | EmbeddingAbandoned():
                return request_key(event.tenant, data.request_id, data.attempt, OUTCOME), None
            case EmbeddingReembedded():
                return request_key(event.tenant, data.request_id, data.time, REEMBEDDED), None
    return event.event_id, None


def _bytes(printable: str) -> bytes | None:
    """The reverse of `domain.fingerprint.printable`; None for what never was one."""
    try:
        return urlsafe_b64decode(printable + "==") or None
    except (binascii.Error, ValueError):
        return None
