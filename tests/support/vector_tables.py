"""The tables of collections in memory, for tests of what stands on them. `fail` is what the next call raises."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime

import numpy as np
from numpy.typing import NDArray

from adapters.postgres.vectors import CollectionGone, Filter, IndexState, Match, Row, Scalar, VectorTable


class MemoryVectorTables:
    """See `gateway.collections.ports.KeepsVectors`."""

    def __init__(self) -> None:
        self.tables: dict[str, dict[str, tuple[NDArray[np.float32], dict[str, Scalar] | None]]] = {}
        self.owners: dict[str, str] = {}
        self.dropped: set[str] = set()
        self.fail: Exception | None = None
        self.writes = 0

    def _rows(self, table: VectorTable) -> dict[str, tuple[NDArray[np.float32], dict[str, Scalar] | None]]:
        if self.fail is not None:
            failure, self.fail = self.fail, None
            raise failure
        if table.id in self.dropped:
            raise CollectionGone
        assert self.owners.setdefault(table.id, table.tenant) == table.tenant
        return self.tables.setdefault(table.id, {})

    async def upsert(
        self,
        table: VectorTable,
        ids: Sequence[str],
        vectors: NDArray[np.float32],
        metadata: Sequence[Mapping[str, Scalar] | None],
    ) -> None:
        rows = self._rows(table)
        assert vectors.shape == (len(ids), table.dimensions)
        assert len(metadata) == len(ids)
        self.writes += 1
        for row_id, vector, document in zip(ids, vectors, metadata, strict=True):
            rows[row_id] = (vector.copy(), None if document is None else dict(document))

    async def search(
        self,
        table: VectorTable,
        vector: NDArray[np.float32],
        k: int,
        where: Filter | None = None,
        *,
        exact: bool = False,
    ) -> list[Match]:
        found = [
            Match(row_id, float(row @ vector / np.linalg.norm(row) / np.linalg.norm(vector)), document)
            for row_id, (row, document) in self._rows(table).items()
            if all((document or {}).get(field, ...) in choices for field, choices in (where or {}).items())
        ]
        return sorted(found, key=lambda match: -match.score)[:k]

    async def page(self, table: VectorTable, after: str, limit: int, *, vectors: bool = False) -> list[Row]:
        rows = self._rows(table)
        ids = [row_id for row_id in sorted(rows) if row_id > after][:limit]
        return [Row(i, rows[i][1], datetime.now(UTC), rows[i][0] if vectors else None) for i in ids]

    async def delete(self, table: VectorTable, ids: Sequence[str]) -> int:
        rows = self._rows(table)
        return sum(rows.pop(row_id, None) is not None for row_id in set(ids))

    async def count(self, table: VectorTable, most: int | None = None) -> int:
        count = len(self._rows(table))
        return count if most is None else min(count, most)

    async def index(self, table: VectorTable) -> IndexState:
        return IndexState("none")

    async def drop(self, table: VectorTable) -> bool:
        self.dropped.add(table.id)
        return self.tables.pop(table.id, None) is not None

    async def kept(self, tenant: str | None = None) -> list[tuple[str, str]]:
        return [(table, self.owners[table]) for table in self.tables if tenant in (None, self.owners[table])]
