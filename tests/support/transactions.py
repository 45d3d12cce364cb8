"""Appends whose transaction a test holds open, and who waits for the log's lock."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from uuid import UUID

from adapters.postgres.batch import decode, encode
from adapters.postgres.pool import Connection, connect
from adapters.postgres.statements import statement
from domain.ports.event_log import Appended, NewEvent
from tests.support.waiting import until

_WAITING = """SELECT count(*) FROM pg_locks JOIN pg_database d ON d.oid = database
WHERE locktype = 'advisory' AND NOT granted AND d.datname = current_database()"""


async def waiting_for_the_lock(owner: Connection, count: int = 1) -> None:
    """Return once so many sessions of this database wait for the log's lock."""

    async def so_many() -> bool:
        return bool(await owner.fetchval(_WAITING) >= count)

    await until(so_many, what=f"{count} wait for the log's lock")


class OpenAppend:
    """A session of the application in a transaction that has appended; `commit` or `roll_back` ends it."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._transaction = connection.transaction()

    async def append(self, instance: UUID, events: Sequence[NewEvent]) -> list[Appended]:
        """As the event log appends, but the transaction stays open."""
        await self._transaction.start()
        row = await self._connection.fetchrow(statement("append"), *encode(instance, events))
        assert row is not None
        return decode(len(events), *row)

    async def commit(self) -> None:
        await self._transaction.commit()

    async def roll_back(self) -> None:
        await self._transaction.rollback()


@asynccontextmanager
async def open_append(dsn: str) -> AsyncIterator[OpenAppend]:
    """A session for one such transaction; it ends with the block."""
    connection = await connect(dsn, "open append")
    try:
        yield OpenAppend(connection)
    finally:
        connection.terminate()
