"""The event log in memory: the port's plain double, for tests and for trying things out. Nothing survives the process."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from uuid import UUID, uuid4

import msgspec

from domain.content_hash import content_hash
from domain.ports.event_log import (
    ANY_VERSION,
    Appended,
    AppendStatus,
    InstanceFenced,
    LogIdentity,
    NewEvent,
    StoredEvent,
)

_DAY = 86_400_000_000
"""A day in microseconds."""


class _Instance(msgspec.Struct):
    lease_until: int
    fenced_head: int | None = None


class _Key(msgspec.Struct, frozen=True):
    position: int
    day: int
    fingerprint: bytes | None


class MemoryStore:
    """What a database would hold. Several `MemoryEventLog`s may share one. `clock` gives microseconds since 1970 UTC."""

    def __init__(self, clock: Callable[[], int] = lambda: time.time_ns() // 1000) -> None:
        self.clock = clock
        self.identity = LogIdentity(uuid4(), uuid4())
        self.events: list[StoredEvent] = []
        self.keys: dict[bytes, _Key] = {}
        self.versions: dict[str, int] = {}
        self.instances: dict[UUID, _Instance] = {}

    def now(self) -> int:
        """The time, never before that of the newest event."""
        return max(self.clock(), self.events[-1].recorded_at) if self.events else self.clock()

    def known(self, key: bytes) -> _Key | None:
        """Who holds a dedupe key, among the keys of today and yesterday."""
        held = self.keys.get(key)
        return held if held is not None and held.day >= self.now() // _DAY - 1 else None


class MemoryEventLog:
    """Implements `domain.ports.event_log.EventLog`. An append has no await inside, so it is atomic."""

    def __init__(self, store: MemoryStore | None = None) -> None:
        self.store = store if store is not None else MemoryStore()

    async def identity(self) -> LogIdentity:
        """See `EventLog.identity`."""
        return self.store.identity

    async def append(self, instance: UUID, events: Sequence[NewEvent]) -> list[Appended]:
        """See `EventLog.append`."""
        if not events:
            return []
        self._alive(instance)
        now = self.store.now()
        return [self._append(event, now) for event in events]

    def _append(self, event: NewEvent, now: int) -> Appended:
        store = self.store
        if refusal := _unsendable(event):
            return Appended(AppendStatus.REJECTED, detail=refusal)
        if (held := store.known(event.key)) is not None:
            differs = event.fingerprint and held.fingerprint and event.fingerprint != held.fingerprint
            status = AppendStatus.MISMATCH if differs else AppendStatus.DUPLICATE
            return Appended(status, held.position, store.events[held.position - 1].version)
        version = None
        if event.expected_version is not None:
            current = store.versions.get(event.stream, 0)
            if event.expected_version not in (ANY_VERSION, current):
                return Appended(AppendStatus.CONFLICT, version=current)
        # The data is looked at last, as Postgres does: of a duplicate or a loser nothing is stored.
        if refusal := _unstorable(event.data):
            return Appended(AppendStatus.REJECTED, detail=refusal)
        if event.expected_version is not None:
            version = store.versions[event.stream] = store.versions.get(event.stream, 0) + 1
        position = len(store.events) + 1
        stored = StoredEvent(
            position,
            event.event_id,
            event.tenant,
            event.stream,
            version,
            event.type,
            event.schema_version,
            now,
            event.data,
            b"",
        )
        store.events.append(msgspec.structs.replace(stored, content_hash=content_hash(stored)))
        store.keys[event.key] = _Key(position, now // _DAY, event.fingerprint)
        return Appended(AppendStatus.APPENDED, position, version)

    async def read(self, after: int, limit: int) -> list[StoredEvent]:
        """See `EventLog.read`."""
        return self.store.events[after : after + limit]

    async def read_decisions(self, after: int, limit: int) -> list[StoredEvent]:
        """See `EventLog.read_decisions`."""
        return [event for event in self.store.events[after:] if event.version is not None][:limit]

    async def find(self, keys: Sequence[bytes]) -> dict[bytes, StoredEvent]:
        """See `EventLog.find`."""
        held = {key: self.store.known(key) for key in keys}
        return {key: self.store.events[found.position - 1] for key, found in held.items() if found is not None}

    async def head(self) -> int:
        """See `EventLog.head`."""
        return len(self.store.events)

    async def register_instance(self, description: str, lease_seconds: float) -> UUID:
        """See `EventLog.register_instance`."""
        instance = uuid4()
        self.store.instances[instance] = _Instance(self._lease_end(lease_seconds))
        return instance

    async def renew_instance(self, instance: UUID, lease_seconds: float) -> None:
        """See `EventLog.renew_instance`."""
        self._alive(instance).lease_until = self._lease_end(lease_seconds)

    async def fence_instance(self, instance: UUID) -> int:
        """See `EventLog.fence_instance`."""
        head = len(self.store.events)
        known = self.store.instances.get(instance)
        if known is None:
            return head
        if known.fenced_head is None:
            known.fenced_head = head
        return known.fenced_head

    async def fenced(self, instance: UUID) -> bool:
        """See `EventLog.fenced`."""
        known = self.store.instances.get(instance)
        return known is None or known.fenced_head is not None

    async def fence_expired(self) -> list[UUID]:
        """See `EventLog.fence_expired`."""
        now = self.store.clock()
        expired = [
            i for i, known in self.store.instances.items() if known.fenced_head is None and known.lease_until < now
        ]
        for instance in expired:
            await self.fence_instance(instance)
        return expired

    def _alive(self, instance: UUID) -> _Instance:
        known = self.store.instances.get(instance)
        if known is None or known.fenced_head is not None:
            raise InstanceFenced(f"instance {instance} is fenced: stop, and register a new one")
        return known

    def _lease_end(self, seconds: float) -> int:
        return self.store.clock() + int(seconds * 1_000_000)


def _unsendable(event: NewEvent) -> str | None:
    """Why the event cannot be given to Postgres at all."""
    names = (event.tenant, event.stream, event.type)
    if len(event.key) != 16 or len(event.event_id) != 16:
        return "a key or id is not 16 bytes long"
    try:
        texts = [*(name.encode() for name in names), event.data.decode().encode()]
    except UnicodeError:
        return "a value of the event is not UTF-8, or holds a lone surrogate"
    if not all(texts) or any(b"\x1e" in text or b"\0" in text for text in texts):
        return "tenant, stream, type and data must not be empty, and no value may hold U+0000 or U+001E"
    return None


def _unstorable(data: bytes) -> str | None:
    """Why Postgres would not take the data."""
    try:
        parsed = json.loads(data)
        stored = json.dumps(parsed, ensure_ascii=False)
        stored.encode()
    except (ValueError, RecursionError):
        return "the event's data is not JSON without lone surrogates"
    if "\\u0000" in stored.replace("\\\\", ""):
        return "the event's data holds U+0000"
    return None if isinstance(parsed, dict) else "the event's data is not a JSON object"
