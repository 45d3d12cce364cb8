"""An event as a line of JSON: every column, with the data as Postgres's own text byte for byte, so that its hash can be checked.

`data` comes last. It is neither parsed nor written anew here: a number or a depth that Python's JSON would not keep stays as it is.
"""

from __future__ import annotations

from uuid import UUID

import msgspec

from domain.content_hash import content_hash
from domain.ports.event_log import StoredEvent

_DATA = b',"data":'
"""Cannot occur within a JSON string, where a quotation mark is escaped: its first occurrence is the field."""


class BadLine(Exception):
    """The line is no event, or the event is not as it was written; the message says which, without its data."""


class _Columns(msgspec.Struct, frozen=True, gc=False, forbid_unknown_fields=True, omit_defaults=True):
    """All but the data. `recorded_at` is microseconds since the Unix epoch; `shredded`: what the tenant's key sealed is gone."""

    position: int
    event_id: UUID
    tenant: str
    stream: str
    version: int | None
    type: str
    schema_version: int
    recorded_at: int
    content_hash: str
    shredded: bool = False


_encoder = msgspec.json.Encoder()
_decoder = msgspec.json.Decoder(_Columns)


def encode_line(event: StoredEvent, *, shredded: bool = False) -> bytes:
    """The event's line, with its newline."""
    columns = _Columns(
        event.position, UUID(bytes=event.event_id), event.tenant, event.stream, event.version, event.type,
        event.schema_version, event.recorded_at, event.content_hash.hex(), shredded,
    )  # fmt: skip
    return b"".join((_encoder.encode(columns)[:-1], _DATA, event.data, b"}\n"))


def decode_line(line: bytes) -> StoredEvent:
    """The event of a line, whose newline may be missing. Raises `BadLine`; the hash is not looked at."""
    head, found, data = line.removesuffix(b"\n").partition(_DATA)
    if not found or not data.endswith(b"}"):
        raise BadLine("it is not an event: expected a JSON object with `data` as its last field")
    try:
        c = _decoder.decode(head + b"}")
        digest = bytes.fromhex(c.content_hash)
    except ValueError as error:  # msgspec's errors are of this kind
        raise BadLine(f"it is not an event: {error}") from None
    return StoredEvent(
        c.position, c.event_id.bytes, c.tenant, c.stream, c.version, c.type, c.schema_version, c.recorded_at, data[:-1],
        digest,
    )  # fmt: skip


def checked(event: StoredEvent, position: int) -> StoredEvent:
    """The event, if it is the one of `position` and has the content its hash was taken of. Raises `BadLine`."""
    if event.position != position:
        raise BadLine(f"it has position {event.position}, expected {position}")
    if content_hash(event) != event.content_hash:
        raise BadLine(f"the event at position {position} is not as it was written: its content hash differs")
    return event
