"""The typed data of an event, of whatever schema version it was written in."""

from __future__ import annotations

import msgspec

from domain.events import EVENT_TYPES, EventData, KeyRevoked, TenantShredded
from domain.upcasters import UnknownSchema, upcast

_decoders = {name: msgspec.json.Decoder(struct) for name, struct in EVENT_TYPES.items()}


def decode_data(event_type: str, data: bytes, schema_version: int) -> EventData:
    """The typed data of an event that was written in `schema_version`.

    Raises KeyError for a type this build does not know, `UnknownSchema` for a version it does not know, msgspec.ValidationError for a
    bad shape.
    """
    return _decoders[event_type].decode(upcast(event_type, schema_version, data))


ENDS_ACCESS = frozenset({KeyRevoked.TYPE, TenantShredded.TYPE})
"""Decisions that every build obeys, whatever wrote them: see `decode_decision`."""


def decode_decision(event_type: str, data: bytes, schema_version: int) -> EventData | None:
    """The typed data of a decision, or None where a newer build wrote what this one cannot know: it then changes nothing here.

    That is safe for what gives (a key or a tenant unknown here is refused here) but not for what takes away: while an old gateway
    runs beside a newer one, a revocation must take effect on both. So those in `ENDS_ACCESS` are read by the fields that this build
    knows, and their schema version is never raised (a test holds it): what has to be added comes as optional fields. Raises
    msgspec.ValidationError for a bad shape.
    """
    if event_type not in EVENT_TYPES:
        return None
    try:
        return decode_data(event_type, data, schema_version)
    except UnknownSchema:
        return _decoders[event_type].decode(data) if event_type in ENDS_ACCESS else None
