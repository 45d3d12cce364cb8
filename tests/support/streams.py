"""Whether an event stands in a stream that its type names."""

from __future__ import annotations

import msgspec

from domain.events import EVENT_TYPES, SYSTEM_STREAM, SYSTEM_TENANT


def wrong_places(event_type: str, tenant: str, stream: str, data: bytes) -> list[str]:
    """What is wrong with where the event stands; empty when it is right. The stream `system` is for the tenant `_system` only."""
    fields = msgspec.json.decode(data, type=dict[str, object]) | {"tenant": tenant}
    expected = {pattern.format_map(fields) for pattern in EVENT_TYPES[event_type].STREAMS}
    if stream not in expected or (stream == SYSTEM_STREAM) != (tenant == SYSTEM_TENANT):
        return [f"{event_type} of {tenant} in {stream}: expected {' or '.join(sorted(expected))}"]
    return []
