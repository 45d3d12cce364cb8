"""The event log port: append in one round trip, read by position, find by dedupe key, fence instances.

Every implementation passes `tests/conformance/test_event_log.py`.
"""

from __future__ import annotations

from collections.abc import Sequence
from enum import StrEnum
from typing import Protocol
from uuid import UUID

import msgspec


class AppendStatus(StrEnum):
    """What became of one event of a batch. Each event has its own status: a bad one never fails its neighbours."""

    APPENDED = "appended"
    """Written at `position`."""
    DUPLICATE = "duplicate"
    """An event with the same dedupe key (and fingerprint) is already at `position`; nothing was written."""
    MISMATCH = "mismatch"
    """The dedupe key is taken at `position` by an event with another fingerprint; nothing was written."""
    CONFLICT = "conflict"
    """`expected_version` is not the stream's version, which is returned; nothing was written."""
    REJECTED = "rejected"
    """Postgres refused this event's data (`detail` says why); nothing was written."""


ANY_VERSION = -1
"""`expected_version` of a decision event that takes whatever version comes next."""


class NewEvent(msgspec.Struct, frozen=True, gc=False):
    """An event to append.

    `key` (16 bytes) dedupes: the first event of a key wins. `event_id` (16 bytes, a UUID) names the event for ever.
    `fingerprint` is compared when the key is already taken: equal is a duplicate, another is a mismatch; None never mismatches.
    `data` is one JSON object, encoded in UTF-8. `expected_version` is None for facts (no version is kept), `ANY_VERSION` or the
    number of events already on the stream for decision streams, whose events are numbered 1..n.
    """

    key: bytes
    event_id: bytes
    tenant: str
    stream: str
    type: str
    data: bytes
    schema_version: int = 1
    fingerprint: bytes | None = None
    expected_version: int | None = None


class Appended(msgspec.Struct, frozen=True, gc=False):
    """The outcome of one event of a batch, in the order given. `position` is the event's own, or of the first with its key."""

    status: AppendStatus
    position: int | None = None
    version: int | None = None
    detail: str | None = None


class StoredEvent(msgspec.Struct, frozen=True, gc=False):
    """An event as the log keeps it. `recorded_at` is microseconds since the Unix epoch, UTC, never decreasing with position."""

    position: int
    event_id: bytes
    tenant: str
    stream: str
    version: int | None
    type: str
    schema_version: int
    recorded_at: int
    data: bytes
    content_hash: bytes


class LogIdentity(msgspec.Struct, frozen=True):
    """`installation` survives restores; `incarnation` changes with each, so that foreign cursors are told apart."""

    installation: UUID
    incarnation: UUID


class LogUnavailable(Exception):
    """The log could not be reached, or the answer was lost. After an append the outcome is unknown: send the same events again."""


class LogDamaged(Exception):
    """Events that were committed are missing or cannot be read: no append leaves that. `position` is the first one missing."""

    def __init__(self, position: int, message: str) -> None:
        super().__init__(message)
        self.position = position


class InstanceFenced(Exception):
    """The appending instance was fenced: its lease ran out or it was declared dead. It must stop and start as a new instance."""


class EventLog(Protocol):
    """One append-only, gap-free sequence of events, positions 1..N in commit order."""

    async def identity(self) -> LogIdentity:
        """The log's installation and incarnation."""
        ...

    async def append(self, instance: UUID, events: Sequence[NewEvent]) -> list[Appended]:
        """Append `events` in one transaction and one round trip; durable (fsync) on return.

        Raises `LogUnavailable` (outcome unknown, retry with the same events) and `InstanceFenced` (nothing was written).
        """
        ...

    async def read(self, after: int, limit: int) -> list[StoredEvent]:
        """Up to `limit` events with position > `after`, in order, without a gap. Raises `LogDamaged` where there is one."""
        ...

    async def read_decisions(self, after: int, limit: int) -> list[StoredEvent]:
        """The same, only events of decision streams (those with a version): configuration, keys, agents."""
        ...

    async def find(self, keys: Sequence[bytes]) -> dict[bytes, StoredEvent]:
        """The events that hold these dedupe keys, among those of the dedupe window (today and yesterday)."""
        ...

    async def head(self) -> int:
        """The position of the newest event, 0 when the log is empty."""
        ...

    async def register_instance(self, description: str, lease_seconds: float) -> UUID:
        """A new instance that may append while its lease lasts. `description` says host, boot id and pid, for operators."""
        ...

    async def renew_instance(self, instance: UUID, lease_seconds: float) -> None:
        """Extend the lease. Raises `InstanceFenced` if it was fenced."""
        ...

    async def fence_instance(self, instance: UUID) -> int:
        """Refuse every later append of `instance`; returns the head at that moment: nothing of it lies behind. Idempotent."""
        ...

    async def fenced(self, instance: UUID) -> bool:
        """Whether `instance` may append no more. An instance the log does not know counts as fenced."""
        ...

    async def fence_expired(self) -> list[UUID]:
        """Fence every instance whose lease ran out (by the database's clock); returns those newly fenced."""
        ...
