"""What collections need beside requests: indexes for those that have grown, and an end for tables whose collection is gone."""

from __future__ import annotations

import asyncio

import asyncpg
import structlog

from adapters.postgres.pool import UNREACHABLE
from adapters.postgres.vector_index import build_index
from adapters.postgres.vectors import CollectionGone, VectorTable
from domain.collections import Collection
from domain.plane import ControlPlane
from gateway.collections.ports import KeepsVectors, table_of

_log = structlog.get_logger("emberlog.collections")
INDEX_ROWS = 2_000
"""From so many vectors on an index is worth its while; fewer are compared one by one in some milliseconds."""
SWEEP_SECONDS = 3_600.0
RETRY_SECONDS = 5.0


class Upkeep:
    """Runs in every gateway: whoever sees that a collection has grown builds its index, one gateway at a time."""

    def __init__(self, plane: ControlPlane, tables: KeepsVectors, owner_dsn: str) -> None:
        self._plane = plane
        self._tables = tables
        self._owner_dsn = owner_dsn
        self._indexed: set[str] = set()
        self._due: dict[str, VectorTable] = {}
        self._wake = asyncio.Event()

    def grown(self, collection: Collection) -> None:
        """Rows were put into it."""
        if collection.table not in self._indexed:
            self._due[collection.table] = table_of(collection)
            self._wake.set()

    async def run_sweeps(self) -> None:
        """Drop what is left of collections, now and from time to time, until cancelled."""
        while True:
            try:
                await self.sweep()
            except UNREACHABLE as error:
                _log.warning("collections_not_swept", reason=type(error).__name__)
            await asyncio.sleep(SWEEP_SECONDS)

    async def sweep(self) -> int:
        """Drop the tables of collections that have ended: whoever ended them could not. Returns how many.

        Only of those is it known: what this build knows nothing of may be a newer build's.
        """
        ended, shredded = self._plane.collections.ended, self._plane.directory.shredded
        gone = [(table, tenant) for table, tenant in await self._tables.kept() if table in ended or tenant in shredded]
        for table, tenant in gone:
            await self._tables.drop(VectorTable(table, tenant, 1))
            _log.info("collection_swept", tenant=tenant)
        return len(gone)

    async def run_builds(self) -> None:
        """Build the indexes that are due, until cancelled: at first whatever an earlier gateway left undone."""
        for collection in self._plane.collections:
            self.grown(collection)
        while True:
            await self._wake.wait()
            self._wake.clear()
            while self._due:
                _, table = self._due.popitem()
                try:
                    await self.index(table)
                except CollectionGone:
                    pass
                except asyncpg.InsufficientPrivilegeError:
                    self._indexed.add(table.id)
                    _log.warning(
                        "collection_not_indexed",
                        tenant=table.tenant,
                        consequence="every search looks at every vector: give the gateway EMBERLOG_DATABASE_OWNER_URL, the login of the tables' owner",
                    )
                except UNREACHABLE as error:
                    _log.warning("collection_index_postponed", tenant=table.tenant, reason=type(error).__name__)
                    self._due[table.id] = table
                    await asyncio.sleep(RETRY_SECONDS)

    async def index(self, table: VectorTable) -> bool:
        """Build the index if the collection has grown enough; whether it has one. Raises what the tables raise."""
        if (await self._tables.index(table)).state != "ready":
            if await self._tables.count(table, INDEX_ROWS) < INDEX_ROWS or not await build_index(
                self._owner_dsn, table
            ):
                return False
            _log.info("collection_indexed", tenant=table.tenant)
        self._indexed.add(table.id)
        return True
