"""What a webhook is sent: an event of the log, as whoever owns the webhook may see it."""

from __future__ import annotations

import msgspec

from domain.ports.event_log import StoredEvent
from gateway.event_document import event_document


class Message(msgspec.Struct, frozen=True):
    """The body. `type`, `timestamp` (ISO 8601, UTC) and `data` are those of the event, `id` is the event's and the header `webhook-id`."""

    type: str
    timestamp: str
    id: str
    tenant: str
    data: msgspec.Raw


def message(event: StoredEvent, *, for_tenant: bool) -> Message:
    """The message of an event; `for_tenant` without what tenants are not shown."""
    document = event_document(event, for_tenant=for_tenant)
    return Message(document.type, document.recorded_at, document.id, document.tenant, document.data)
