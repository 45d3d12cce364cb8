"""Where the rows of collections are kept, as the gateway asks for it: `adapters.postgres.vectors.VectorTables` does it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from adapters.postgres.pool import UNREACHABLE
from adapters.postgres.vectors import (
    CollectionGone,
    Filter,
    IndexState,
    Match,
    Row,
    Scalar,
    VectorsRefused,
    VectorTable,
)
from domain.collections import Collection
from domain.errors import GatewayError, invalid_request


class KeepsVectors(Protocol):
    """Each method raises `CollectionGone` for a collection that was dropped, and what `UNREACHABLE` lists."""

    async def upsert(
        self,
        table: VectorTable,
        ids: Sequence[str],
        vectors: NDArray[np.float32],
        metadata: Sequence[Mapping[str, Scalar] | None],
    ) -> None:
        """Put these rows, all of them or none. Raises `VectorsRefused` too."""
        ...

    async def search(
        self,
        table: VectorTable,
        vector: NDArray[np.float32],
        k: int,
        where: Filter | None = None,
        *,
        exact: bool = False,
    ) -> list[Match]:
        """The nearest rows whose metadata fits, nearest first. Raises `VectorsRefused` too."""
        ...

    async def page(self, table: VectorTable, after: str, limit: int, *, vectors: bool = False) -> list[Row]:
        """The rows behind an id, by id."""
        ...

    async def delete(self, table: VectorTable, ids: Sequence[str]) -> int:
        """Delete rows; returns how many there were."""
        ...

    async def count(self, table: VectorTable, most: int | None = None) -> int:
        """How many rows there are, counted up to `most`."""
        ...

    async def index(self, table: VectorTable) -> IndexState:
        """How the index stands."""
        ...

    async def drop(self, table: VectorTable) -> bool:
        """Drop it for good."""
        ...

    async def kept(self, tenant: str | None = None) -> list[tuple[str, str]]:
        """The id and the tenant of what is kept."""
        ...


def table_of(collection: Collection) -> VectorTable:
    """Where the rows of a collection are."""
    return VectorTable(collection.table, collection.tenant, collection.dimensions)


@asynccontextmanager
async def reaching(collection: Collection) -> AsyncIterator[None]:
    """Say in the protocol's words what the tables raise."""
    try:
        yield
    except CollectionGone:
        raise GatewayError(
            "not_found", f"collection {collection.name!r} was deleted", details={"field": "collection"}
        ) from None
    except VectorsRefused:
        raise invalid_request(
            f"collection {collection.name!r} keeps its vectors in half precision, and a number of these is beyond that",
            "vector",
        ) from None
    except UNREACHABLE:
        raise GatewayError(
            "unavailable", "the collections' database cannot be reached: try again", retry_after_ms=1000
        ) from None
