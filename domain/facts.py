"""Facts: about the installation itself, on the stream `system` of the tenant `_system` (maintenance, archive, rebuilds), and about a tenant."""

from __future__ import annotations

from hashlib import blake2b

from domain.events import SYSTEM_STREAM, SYSTEM_TENANT, EventData, encode_data
from domain.keys import event_id
from domain.ports.event_log import NewEvent


def tenant_fact(tenant: str, stream: str, data: EventData, identity: str, at: int) -> NewEvent:
    """The event of a fact on a tenant's stream, or the installation's: as `system_fact`, one `identity` of the tenant is logged once."""
    key = blake2b(f"{data.TYPE}\0{tenant}\0{identity}".encode(), digest_size=16, person=b"tenant fact").digest()
    return NewEvent(
        key=key,
        event_id=event_id(key, at),
        tenant=tenant,
        stream=stream,
        type=data.TYPE,
        data=encode_data(data),
        schema_version=data.SCHEMA,
    )


def system_fact(data: EventData, identity: str, at: int) -> NewEvent:
    """The event of a fact: however often it is sent within the dedupe window, and by whomever, one `identity` is logged once.

    Its id is derived from both arguments: `at` is when it happened (microseconds since the epoch) or, where several processes find the
    same fact at different times, any number that they agree on.
    """
    key = blake2b(f"{data.TYPE}\0{identity}".encode(), digest_size=16, person=b"system fact").digest()
    return NewEvent(
        key=key,
        event_id=event_id(key, at),
        tenant=SYSTEM_TENANT,
        stream=SYSTEM_STREAM,
        type=data.TYPE,
        data=encode_data(data),
        schema_version=data.SCHEMA,
    )
