"""The tables of collections: rows of vectors by id, put, found by nearness, listed, deleted.

A table is made by whoever first needs it, and never again once it was dropped: `CollectionGone`.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from datetime import datetime
from typing import TYPE_CHECKING, Any, Self, TypeVar

import asyncpg
import msgspec
import numpy as np
from numpy.typing import NDArray

from adapters.postgres.pool import CONNECT_SECONDS, Connection, Pool
from adapters.postgres.statements import statement
from adapters.postgres.vector_codec import encode_vectors, extension, speak_vectors

if TYPE_CHECKING:
    from asyncpg.pool import PoolConnectionProxy

    Held = PoolConnectionProxy[asyncpg.Record]

_T = TypeVar("_T")
_UPSERT, _SEARCH, _PAGE = (statement(f"vectors_{name}") for name in ("upsert", "search", "page"))
_WRITE_BYTES = 4 * 1024 * 1024
"""Vectors that go into one statement; a write of more is several in one transaction."""
SINGLE_PRECISION = 2000
"""Dimensions up to which a table keeps float32; beyond, float16."""
STATEMENT_SECONDS = 30.0

Scalar = str | int | float | bool | None
Filter = dict[str, list[Scalar]]
"""What the metadata must be: for each field one of these values."""


class CollectionGone(Exception):
    """The collection was dropped."""


class VectorsRefused(Exception):
    """Postgres cannot keep these vectors: a number is too large for half precision."""


class VectorTable(msgspec.Struct, frozen=True):
    """Which collection: its id (32 hex digits), whose it is, and the dimensions of its vectors."""

    id: str
    tenant: str
    dimensions: int


class Match(msgspec.Struct, frozen=True):
    """A row that was found. `score` is its cosine similarity to what was asked for, 1 for the same direction."""

    id: str
    score: float
    metadata: dict[str, Any] | None


class Row(msgspec.Struct, frozen=True):
    """A row of a collection; `vector` None where it was not asked for."""

    id: str
    metadata: dict[str, Any] | None
    updated_at: datetime
    vector: NDArray[np.float32] | None


class IndexState(msgspec.Struct, frozen=True):
    """How the index over the vectors stands: `none`, `building` (`done` of `total` rows in this `phase`) or `ready`."""

    state: str
    phase: str | None = None
    done: int | None = None
    total: int | None = None


class VectorTables:
    """All collections of one database. Every method raises what `UNREACHABLE` lists where the database is out of reach."""

    def __init__(self, pool: Pool, schema: str) -> None:
        self._pool = pool
        self._schema = schema
        self._most = max(1, pool.get_max_size() // 2)
        self._turns: dict[str, tuple[asyncio.Semaphore, int]] = {}

    @classmethod
    async def connect(cls, dsn: str, *, size: int = 4) -> Self:
        """At most `size` connections, apart from those of the log: a slow search keeps nobody from being billed."""
        pool: Pool = await asyncpg.create_pool(
            dsn,
            min_size=1,
            max_size=size,
            init=speak_vectors,
            timeout=CONNECT_SECONDS,
            command_timeout=STATEMENT_SECONDS + 5,
            # What the pool makes a connection forget between two users would be its settings of the search.
            reset=_keep_settings,
            server_settings={
                "application_name": "emberlog vectors",
                "statement_timeout": str(int(STATEMENT_SECONDS * 1000)),
                "idle_in_transaction_session_timeout": "60000",
                "timezone": "UTC",
                "jit": "off",
                # How many rows a filter leaves is known only with its values.
                "plan_cache_mode": "force_custom_plan",
            },
        )
        async with pool.acquire() as connection:
            schema, _ = await extension(connection)
        return cls(pool, schema)

    async def close(self) -> None:
        """Close the connections."""
        await self._pool.close()

    async def upsert(
        self,
        table: VectorTable,
        ids: Sequence[str],
        vectors: NDArray[np.float32],
        metadata: Sequence[Mapping[str, Scalar] | None],
    ) -> None:
        """Put these rows, in place of those of the same ids; all of them or none. Raises `CollectionGone`, `VectorsRefused`."""
        sql = self._sql(_UPSERT, table)
        step = max(1, _WRITE_BYTES // (4 * table.dimensions))
        documents = [None if m is None else msgspec.json.encode(m).decode() for m in metadata]

        async def put(connection: Held) -> None:
            async with connection.transaction():
                # In the order of the ids as a whole, as within a statement.
                order = sorted(range(len(ids)), key=lambda place: ids[place].encode())
                for start in range(0, len(order), step):
                    part = order[start : start + step]
                    await connection.execute(
                        sql, [ids[i] for i in part], encode_vectors(vectors[part]), [documents[i] for i in part]
                    )

        try:
            await self._made(table, put)
        except asyncpg.DataError:
            raise VectorsRefused from None

    async def search(
        self,
        table: VectorTable,
        vector: NDArray[np.float32],
        k: int,
        where: Filter | None = None,
        *,
        exact: bool = False,
    ) -> list[Match]:
        """The `k` rows nearest to `vector` by their cosine, nearest first, of those whose metadata fits. Raises `CollectionGone`, `VectorsRefused`.

        The index gives them, where there is one, nearly always all of them; where it gives fewer than `k`, or with `exact`, every row is
        looked at.
        """
        clause, values = _clause(where)
        near = f"embedding OPERATOR({self._schema}.<=>) $1::{self._schema}.vector::{self._schema}.{_type(table)}"
        indexed = self._sql(_SEARCH, table, filter=clause, order=near)
        # The index serves this very expression alone.
        every = self._sql(_SEARCH, table, filter=clause, order=f"({near}) + 0")

        [asked] = encode_vectors(vector.reshape(1, -1))

        async def find(connection: Held) -> list[asyncpg.Record]:
            if not exact:
                found: list[asyncpg.Record] = await connection.fetch(indexed, asked, k, *values)
                if len(found) == k:
                    return found
            return await connection.fetch(every, asked, k, *values)

        try:
            found = await self._made(table, find)
        except asyncpg.DataError:
            raise VectorsRefused from None
        return [Match(row["id"], 1.0 - row["distance"], _document(row["metadata"])) for row in found]

    async def page(self, table: VectorTable, after: str, limit: int, *, vectors: bool = False) -> list[Row]:
        """The rows behind the id `after`, by id, with their vectors or without. Raises `CollectionGone`."""
        sql = self._sql(_PAGE, table, vector=f"embedding::{self._schema}.vector" if vectors else "NULL")
        found = await self._made(table, lambda connection: connection.fetch(sql, after, limit))
        return [Row(row["id"], _document(row["metadata"]), row["updated_at"], row["embedding"]) for row in found]

    async def delete(self, table: VectorTable, ids: Sequence[str]) -> int:
        """Delete the rows of these ids; returns how many there were. Raises `CollectionGone`."""
        sql = self._sql("DELETE FROM {table} WHERE id = ANY ($1::text[])", table)
        done = await self._made(table, lambda connection: connection.execute(sql, sorted(set(ids))))
        return int(done.split()[-1])

    async def count(self, table: VectorTable, most: int | None = None) -> int:
        """How many rows there are, counted up to `most`. Raises `CollectionGone`."""
        sql = self._sql("SELECT count(*) FROM (SELECT FROM {table} LIMIT $1) AS counted", table)
        found: int = await self._made(table, lambda connection: connection.fetchval(sql, most))
        return found

    async def index(self, table: VectorTable) -> IndexState:
        """How the index over its vectors stands."""
        row = await self._pool.fetchrow("SELECT * FROM emberlog.collection_index($1)", table.id)
        assert row is not None
        return IndexState(row["state"], row["phase"], row["done"], row["total"])

    async def drop(self, table: VectorTable) -> bool:
        """Drop it for good; whether there was anything of it."""
        return bool(await self._pool.fetchval("SELECT emberlog.drop_collection($1, $2)", table.id, table.tenant))

    async def kept(self, tenant: str | None = None) -> list[tuple[str, str]]:
        """The id and the tenant of every collection that has a table, or of a tenant's."""
        sql = (
            "SELECT id, tenant FROM emberlog.collections WHERE dropped_at IS NULL AND ($1::text IS NULL OR tenant = $1)"
        )
        return [(row["id"], row["tenant"]) for row in await self._pool.fetch(sql, tenant)]

    async def _made(self, table: VectorTable, work: Callable[[Held], Awaitable[_T]]) -> _T:
        """Do `work`; where there is no table, make it and do it again."""
        async with self._turn(table.tenant), self._pool.acquire() as connection:
            try:
                return await work(connection)
            except asyncpg.UndefinedTableError:
                made = await connection.fetchval(
                    "SELECT emberlog.open_collection($1, $2, $3)", table.id, table.tenant, table.dimensions
                )
                if not made:
                    raise CollectionGone from None
            try:
                return await work(connection)
            except asyncpg.UndefinedTableError:
                raise CollectionGone from None

    @asynccontextmanager
    async def _turn(self, tenant: str) -> AsyncIterator[None]:
        """One of the tenant's turns: half of the connections at most, so that whoever searches much keeps no other from it."""
        turns, holders = self._turns.get(tenant, (None, 0))
        turns = turns or asyncio.Semaphore(self._most)
        self._turns[tenant] = (turns, holders + 1)
        try:
            async with turns:
                yield
        finally:
            _, holders = self._turns[tenant]
            if holders == 1:
                del self._turns[tenant]
            else:
                self._turns[tenant] = (turns, holders - 1)

    def _sql(self, text: str, table: VectorTable, **parts: str) -> str:
        return text.format(table=f"vectors.c_{table.id}", schema=self._schema, type=_type(table), **parts)


async def drop_collections_of(connection: Connection, tenant: str) -> int:
    """Drop what a tenant keeps, for good; returns how many collections that were."""
    return len(
        await connection.fetch(
            "SELECT emberlog.drop_collection(c.id, c.tenant) FROM emberlog.collections c WHERE c.tenant = $1 AND c.dropped_at IS NULL",
            tenant,
        )
    )


def _type(table: VectorTable) -> str:
    return "vector" if table.dimensions <= SINGLE_PRECISION else "halfvec"


def _clause(where: Filter | None) -> tuple[str, list[str]]:
    """The condition on the metadata, its values from $3 on. Equality is containment, which the index over the metadata serves."""
    values: list[str] = []
    fields = []
    for field, choices in (where or {}).items():
        places = []
        for choice in choices:
            values.append(msgspec.json.encode({field: choice}).decode())
            places.append(f"metadata @> ${len(values) + 2}::jsonb")
        fields.append("(" + (" OR ".join(places) or "false") + ")")
    return " AND ".join(fields) or "true", values


def _document(text: str | None) -> dict[str, Any] | None:
    return None if text is None else msgspec.json.decode(text, type=dict[str, Any])


async def _keep_settings(connection: asyncpg.Connection[asyncpg.Record]) -> None:
    """In place of the pool's own: a connection is used by single statements and whole transactions only, which leave nothing."""
