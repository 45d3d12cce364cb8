"""The content hash of an event: what shows that it is still as it was written."""

from __future__ import annotations

from hashlib import sha256

from domain.ports.event_log import StoredEvent


def content_hash(event: StoredEvent) -> bytes:
    """SHA-256 of a stored event, as `emberlog.content_hash` in the migrations lays it out; `data` is Postgres's own text of it."""
    tenant, stream, kind = event.tenant.encode(), event.stream.encode(), event.type.encode()
    version = "-" if event.version is None else event.version
    h = event.event_id.hex()
    head = (
        f"{event.position} {h[:8]}-{h[8:12]}-{h[12:16]}-{h[16:20]}-{h[20:]} {version} {event.schema_version} {event.recorded_at} "
        f"{len(tenant)} {len(stream)} {len(kind)} "
    )
    return sha256(head.encode() + tenant + stream + kind + event.data).digest()
