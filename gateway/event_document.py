"""An event as the API and the commands show it."""

from __future__ import annotations

from collections.abc import Collection
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import msgspec

from domain.events import EVENT_TYPES
from domain.ports.event_log import StoredEvent

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_OURS = frozenset({"provider_nano_usd", "hash"})
"""Fields of event data that are no business of a tenant's: what a provider charges us, and the hashes of keys."""
_HIDDEN = {name: _OURS & set(struct.__struct_fields__) for name, struct in EVENT_TYPES.items()}


class EventDocument(msgspec.Struct, frozen=True, kw_only=True):
    """An event of the log. `position` is shown to the installation only; `version` numbers the events of a decision stream.

    `recorded_at` is ISO 8601, UTC. `data` depends on `type`. `shredded` is there (and true) where the tenant's key was destroyed: fields of
    the data that it sealed cannot be opened any more, those that it keyed mean nothing.
    """

    position: int | msgspec.UnsetType = msgspec.UNSET
    id: str
    tenant: str
    stream: str
    version: int | None
    type: str
    schema_version: int
    recorded_at: str
    shredded: bool | msgspec.UnsetType = msgspec.UNSET
    data: msgspec.Raw


def event_document(event: StoredEvent, *, for_tenant: bool, shredded: bool = False) -> EventDocument:
    """The document of an event; `for_tenant` without what tenants are not shown, `shredded` where its tenant was shredded."""
    return EventDocument(
        position=msgspec.UNSET if for_tenant else event.position,
        id=str(UUID(bytes=event.event_id)),
        tenant=event.tenant,
        stream=event.stream,
        version=event.version,
        type=event.type,
        schema_version=event.schema_version,
        recorded_at=time_text(event.recorded_at),
        shredded=shredded or msgspec.UNSET,
        data=msgspec.Raw(_shown(event) if for_tenant else event.data),
    )


def time_text(micros: int) -> str:
    """Microseconds since the epoch as ISO 8601, UTC, with a Z."""
    return (_EPOCH + timedelta(microseconds=micros)).isoformat().replace("+00:00", "Z")


def _shown(event: StoredEvent) -> bytes:
    # Of a type that only a newer build knows, everything that has such a name is left out.
    hidden = _HIDDEN.get(event.type, _OURS)
    if not any(name.encode() in event.data for name in hidden):
        return event.data
    return msgspec.json.encode(_without(msgspec.json.decode(event.data), hidden))


def _without(value: Any, hidden: Collection[str]) -> Any:
    """The value without the fields of these names, also those of what is in it: attempts have costs of their own."""
    if isinstance(value, dict):
        return {name: _without(inner, hidden) for name, inner in value.items() if name not in hidden}
    return [_without(inner, hidden) for inner in value] if isinstance(value, list) else value
