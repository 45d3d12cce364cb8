"""What the conformance suites run on: every implementation of a port, behind one small interface."""

from __future__ import annotations

import itertools
from collections.abc import AsyncIterator
from typing import Any, Protocol
from uuid import UUID

import pytest

from adapters.memory.event_log import MemoryEventLog, MemoryStore
from adapters.postgres.event_log import PostgresEventLog
from domain.ports.event_log import EventLog, NewEvent
from tests.support.databases import with_user

_serial = itertools.count(1)


class LogWorld(Protocol):
    """One log's storage. Each `open` is what another process would hold; `reopen` forgets everything kept in memory by clients."""

    async def open(self) -> EventLog: ...

    async def reopen(self) -> EventLog: ...


class MemoryWorld:
    def __init__(self) -> None:
        self.store = MemoryStore()

    async def open(self) -> EventLog:
        return MemoryEventLog(self.store)

    async def reopen(self) -> EventLog:
        return MemoryEventLog(self.store)


class PostgresWorld:
    def __init__(self, owner_dsn: str) -> None:
        self._dsn = with_user(owner_dsn, "emberlog_gateway")
        self._opened: list[PostgresEventLog] = []

    async def open(self) -> EventLog:
        log = await PostgresEventLog.connect(self._dsn, pool_size=1, readers=1)
        self._opened.append(log)
        return log

    async def reopen(self) -> EventLog:
        await self.close()
        return await self.open()

    async def close(self) -> None:
        for log in self._opened:
            await log.close()
        self._opened.clear()


@pytest.fixture
def memory_world() -> LogWorld:
    return MemoryWorld()


@pytest.fixture
async def postgres_world(migrated_dsn: str) -> AsyncIterator[LogWorld]:
    made = PostgresWorld(migrated_dsn)
    yield made
    await made.close()


@pytest.fixture(params=["memory", "postgres"])
def world(request: pytest.FixtureRequest) -> LogWorld:
    made: LogWorld = request.getfixturevalue(f"{request.param}_world")
    return made


@pytest.fixture
async def log(world: LogWorld) -> EventLog:
    return await world.open()


@pytest.fixture
async def instance(log: EventLog) -> UUID:
    return await log.register_instance("conformance suite", 60)


def new_event(**changes: Any) -> NewEvent:
    """A fact with ids of its own."""
    number = next(_serial)
    fields: dict[str, Any] = {
        "key": number.to_bytes(16, "big"),
        "event_id": number.to_bytes(16, "little"),
        "tenant": "acme",
        "stream": f"request/acme/{number}",
        "type": "embedding.requested",
        "data": b'{"number": %d}' % number,
    }
    return NewEvent(**fields | changes)
