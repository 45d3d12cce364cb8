"""Whether an event stands in a stream that its type names."""

from __future__ import annotations

import msgspec

from domain.events import EVENT_TYPES, PRICES_STREAM, SYSTEM_STREAM, SYSTEM_TENANT


def wrong_places(event_type: str, tenant: str, stream: str, data: bytes) -> list[str]:
    """What is wrong with where the event stands; empty when it is right. The installation's own streams are for the tenant `_system` only, and it stands in no other."""
    fields = msgspec.json.decode(data, type=dict[str, object]) | {"tenant": tenant}
    expected = {pattern.format_map(fields) for pattern in EVENT_TYPES[event_type].STREAMS}
    ours = stream in (SYSTEM_STREAM, PRICES_STREAM) or stream.startswith("model/")
    requests = stream.startswith(f"request/{SYSTEM_TENANT}/")  # its own calls
    either = stream.startswith("endpoint/")  # one of the installation's, or a tenant's own
    if stream not in expected or (not either and (ours or requests) != (tenant == SYSTEM_TENANT)):
        return [f"{event_type} of {tenant} in {stream}: expected {' or '.join(sorted(expected))}"]
    return []
