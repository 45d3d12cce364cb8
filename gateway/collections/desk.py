"""What people do with collections, for the management API and the commands alike."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any
from uuid import uuid4

import msgspec
import structlog

from adapters.postgres.pool import UNREACHABLE
from adapters.postgres.vectors import Row
from domain.collections import Collection, decide_create_collection, decide_delete_collection, space_of
from domain.decision import Decision
from domain.errors import invalid_request
from domain.plane import ControlPlane
from gateway.collections.ports import KeepsVectors, reaching, table_of
from gateway.collections.searching import SearchAnswer, SearchRequest, search_by_vector
from gateway.control import Written
from gateway.event_document import time_text

_log = structlog.get_logger("emberlog.collections")
Take = Callable[[str, Callable[[ControlPlane], list[Decision]]], Awaitable[Written]]
"""Takes a decision on a stream: `Control.run`, or `Call.decide` of a route."""
PAGE = 1_000
"""Rows of a page at most, and of a step of an export."""
MAX_DELETED = 10_000


class CollectionDocument(msgspec.Struct, frozen=True):
    """A collection, as lists show it."""

    name: str
    tenant: str
    space: str
    dimensions: int


class IndexDocument(msgspec.Struct, frozen=True):
    """The index over the vectors: `none` (every row is looked at), `building` (`done` of `total` rows in this `phase`) or `ready`."""

    state: str
    phase: str | None
    done: int | None
    total: int | None


class CollectionDetail(msgspec.Struct, frozen=True):
    """A collection with how many vectors it has and how its index stands."""

    name: str
    tenant: str
    space: str
    dimensions: int
    vectors: int
    index: IndexDocument


class RowDocument(msgspec.Struct, frozen=True):
    """A row: its id, its metadata, when it was last put (ISO 8601, UTC), and its vector where that was asked for."""

    id: str
    metadata: dict[str, Any] | None
    updated_at: str
    vector: list[float] | msgspec.UnsetType = msgspec.UNSET


class CollectionDesk:
    """For one installation; whose collections are meant is for the caller to check."""

    def __init__(self, plane: ControlPlane, tables: KeepsVectors) -> None:
        self._plane = plane
        self._tables = tables

    def listed(self, tenant: str) -> list[CollectionDocument]:
        """A tenant's, by name."""
        return [_document(collection) for collection in self._plane.collections.of(tenant)]

    async def show(self, tenant: str, name: str) -> CollectionDetail:
        """One of them. Raises `not_found`, `unavailable`."""
        found = self._plane.collections.find(tenant, name)
        async with reaching(found):
            count = await self._tables.count(table_of(found))
            index = await self._tables.index(table_of(found))
        return CollectionDetail(
            found.name, tenant, found.space, found.dimensions, count,
            IndexDocument(index.state, index.phase, index.done, index.total),
        )  # fmt: skip

    async def create(
        self,
        take: Take,
        tenant: str,
        name: str,
        *,
        space: str | None = None,
        model: str | None = None,
        dimensions: int | None = None,
        input_type: str | None = None,
        actor: str,
    ) -> tuple[CollectionDocument, bool]:
        """Make one of this space, or of that of the model's vectors; whether it is new.

        Raises `invalid_request` where both or neither are said, `invalid_config`, `model_not_found`, `resource_constraint`.
        """
        if (space is None) == (model is None):
            raise invalid_request("say either the `space` of the vectors, or the `model` that they will be of", "space")

        def decide(plane: ControlPlane) -> list[Decision]:
            pinned = space_of(plane, model, dimensions, input_type) if model is not None else space
            assert pinned is not None
            return decide_create_collection(plane, tenant, name, table=uuid4().hex, space=pinned, actor=actor)

        written = await take(f"tenant/{tenant}", decide)
        return _document(self._plane.collections.find(tenant, name)), written.changed

    async def delete(self, take: Take, tenant: str, name: str, *, actor: str) -> None:
        """Delete one, with all that is in it. Raises `not_found`."""
        found = self._plane.collections.find(tenant, name)
        await take(f"tenant/{tenant}", lambda plane: decide_delete_collection(plane, tenant, name, actor=actor))
        try:
            await self._tables.drop(table_of(found))
        except UNREACHABLE as error:  # nobody reaches it any more, and the upkeep will find it
            _log.warning("collection_drop_postponed", tenant=tenant, reason=type(error).__name__)

    async def rows(
        self, tenant: str, name: str, *, after: str = "", limit: int = 100, vectors: bool = False
    ) -> list[RowDocument]:
        """The rows behind the id `after`, by id. Raises `not_found`, `unavailable`."""
        found = self._plane.collections.find(tenant, name)
        async with reaching(found):
            rows = await self._tables.page(table_of(found), after, limit, vectors=vectors)
        return [_row(row) for row in rows]

    async def search(self, tenant: str, request: SearchRequest) -> SearchAnswer:
        """The rows nearest to a vector. Raises as `search_by_vector` does."""
        return await search_by_vector(self._plane, self._tables, tenant, request)

    async def delete_rows(self, tenant: str, name: str, ids: list[str]) -> int:
        """Delete the rows of these ids; returns how many there were. Raises `not_found`, `invalid_request`, `unavailable`."""
        if not 1 <= len(ids) <= MAX_DELETED:
            raise invalid_request(f"`ids`: expected 1 to {MAX_DELETED} ids", "ids")
        found = self._plane.collections.find(tenant, name)
        async with reaching(found):
            return await self._tables.delete(table_of(found), ids)

    async def export(self, tenant: str, name: str) -> AsyncIterator[bytes]:
        """Every row with its vector as NDJSON, by id, some at a time: what is put meanwhile may be in it or not. Raises as `rows` does."""
        after, page = "", max(1, min(PAGE, 1_000_000 // self._plane.collections.find(tenant, name).dimensions))
        while rows := await self.rows(tenant, name, after=after, limit=page, vectors=True):
            yield b"".join(msgspec.json.encode(row) + b"\n" for row in rows)
            after = rows[-1].id


def _document(collection: Collection) -> CollectionDocument:
    return CollectionDocument(collection.name, collection.tenant, collection.space, collection.dimensions)


def _row(row: Row) -> RowDocument:
    shown = RowDocument(row.id, row.metadata, time_text(int(row.updated_at.timestamp() * 1_000_000)))
    return shown if row.vector is None else msgspec.structs.replace(shown, vector=row.vector.tolist())
