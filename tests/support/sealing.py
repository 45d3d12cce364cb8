"""A log with seals, and an owner who goes around its guards."""

from __future__ import annotations

from uuid import UUID

from adapters.postgres.event_log import PostgresEventLog
from adapters.postgres.pool import Connection
from tests.conformance.conftest import new_event

PARTITION = "emberlog.events_000000000001"


async def append(log: PostgresEventLog, instance: UUID, count: int) -> None:
    """Facts, in one batch."""
    await log.append(instance, [new_event() for _ in range(count)])


async def unguard(owner: Connection) -> None:
    """Switch off what refuses changes of events and seals, as only their owner can."""
    await owner.execute(f"ALTER TABLE {PARTITION} DISABLE TRIGGER append_only")
    await owner.execute("ALTER TABLE emberlog.seals DISABLE TRIGGER append_only")


async def rehash(owner: Connection, position: int) -> None:
    """Give an event the content hash that fits it, as a forger would."""
    await owner.execute(
        f"UPDATE {PARTITION} SET content_hash = emberlog.content_hash(position, event_id, tenant, stream, version, type, "
        "schema_version, emberlog.micros(recorded_at), data) WHERE position = $1",
        position,
    )
