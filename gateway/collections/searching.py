"""Searches: a text is embedded as any request is, by the model of the collection's space, and billed so; a vector is taken as it is."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable, Mapping, Sequence
from secrets import token_hex
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from adapters.postgres.vectors import Filter, Scalar
from domain.collections import Collection, asked_in, check_space
from domain.errors import GatewayError, invalid_request
from domain.plane import ControlPlane
from domain.tenancy import Principal
from gateway.collections.ports import KeepsVectors, reaching, table_of
from gateway.wire.messages import EmbeddingGenerate, EmbeddingResult

if TYPE_CHECKING:
    from gateway.wire.service import Ticket

_MOST = float(np.finfo(np.float32).max)
MAX_K = 100
MAX_VALUES = 100
"""Values of a filter, over all its fields."""

Generate = Callable[..., "Ticket"]
"""`RequestService.generate`."""


class SearchRequest(msgspec.Struct, frozen=True):
    """What is searched for: a `text` or a `vector`, in a collection; the `k` nearest whose metadata has, for each field of the filter, the value or one of the values, and whose score (a cosine) is `threshold` or more."""

    collection: str
    text: str | None = None
    vector: NDArray[np.float32] | None = None
    k: int = 10
    filter: Mapping[str, Scalar | list[Scalar]] | None = None
    threshold: float | None = None


class MatchDocument(msgspec.Struct, frozen=True, omit_defaults=True):
    """A row that was found: its score is its vector's cosine with what was searched for; metadata where it has any."""

    id: str
    score: float
    metadata: dict[str, Any] | None = None


class SearchAnswer(msgspec.Struct, frozen=True):
    """The space that was searched in, and what was found, nearest first."""

    space: str
    matches: list[MatchDocument]


class Searcher:
    """For one installation. `generate` embeds texts."""

    def __init__(self, plane: ControlPlane, tables: KeepsVectors, generate: Generate) -> None:
        self._plane = plane
        self._tables = tables
        self._generate = generate

    async def search(
        self, principal: Principal, agent: str, request: SearchRequest, *, trace: str | None = None
    ) -> SearchAnswer:
        """The nearest rows. Raises `GatewayError`: `forbidden`, `not_found`, `invalid_request`, and what embedding a text raises."""
        if principal.tenant is None:
            raise GatewayError("forbidden", "an installation key has no collections: use a key of a tenant")
        where = _checked(request)
        collection = self._plane.collections.find(principal.tenant, request.collection)
        if request.vector is not None:
            vector = _fitting(collection, request.vector)
        else:
            assert request.text is not None
            vector = await self._embedded(principal, agent, collection, request.text, trace)
        return await _found(self._tables, collection, request, vector, where)

    async def _embedded(
        self, principal: Principal, agent: str, collection: Collection, text: str, trace: str | None
    ) -> NDArray[np.float32]:
        model, input_type = asked_in(self._plane, collection)
        message = EmbeddingGenerate(
            id=f"search-{token_hex(16)}",
            input=text,
            model=model,
            dimensions=collection.dimensions,
            input_type=input_type,  # type: ignore[arg-type]  # of a space's name
            failover="same_space",
        )
        reply = _Waiting()
        ticket = self._generate(principal, agent, message, [text], reply, trace=trace)
        try:
            result, rows = await reply.answer
        except asyncio.CancelledError:
            ticket.cancel()
            raise
        check_space(collection, result.space, "the text's vector", "text")
        assert rows is not None
        row: NDArray[np.float32] = rows[0]
        return row


async def search_by_vector(
    plane: ControlPlane, tables: KeepsVectors, tenant: str, request: SearchRequest
) -> SearchAnswer:
    """The rows nearest to the request's vector, where nothing embeds texts. Raises `not_found`, `invalid_request`, `unavailable`."""
    where, collection = _checked(request), plane.collections.find(tenant, request.collection)
    assert request.vector is not None
    return await _found(tables, collection, request, _fitting(collection, request.vector), where)


async def _found(
    tables: KeepsVectors,
    collection: Collection,
    request: SearchRequest,
    vector: NDArray[np.float32],
    where: Filter | None,
) -> SearchAnswer:
    async with reaching(collection):
        found = await tables.search(table_of(collection), vector, request.k, where)
    least = -math.inf if request.threshold is None else request.threshold
    return SearchAnswer(collection.space, [MatchDocument(m.id, m.score, m.metadata) for m in found if m.score >= least])


class _Waiting:
    """A `Reply` that is awaited."""

    def __init__(self) -> None:
        self.answer: asyncio.Future[tuple[EmbeddingResult, NDArray[np.float32] | None]] = (
            asyncio.get_running_loop().create_future()
        )

    def chunk(self, offset: int, rows: NDArray[np.float32]) -> None:
        """Never asked for."""

    def result(self, result: EmbeddingResult, rows: NDArray[np.float32] | None) -> None:
        """The answer."""
        if not self.answer.done():
            self.answer.set_result((result, rows))

    def error(self, error: GatewayError) -> None:
        """The text could not be embedded."""
        if not self.answer.done():
            self.answer.set_exception(error)


def vector_of_bytes(data: bytes) -> NDArray[np.float32]:
    """A vector as the wire carries it: float32, little-endian. Raises `invalid_request`."""
    if len(data) % 4:
        raise invalid_request(f"`vector` has {len(data)} bytes: expected float32, 4 bytes a number", "vector")
    return np.frombuffer(data, dtype="<f4").astype(np.float32)


def vector_of_numbers(numbers: Sequence[float]) -> NDArray[np.float32]:
    """A vector from JSON. What is beyond float32 is told as what is not finite."""
    exact = np.array(numbers, dtype=np.float64)
    return np.where(np.abs(exact) <= _MOST, exact, np.inf).astype(np.float32)


def _checked(request: SearchRequest) -> Filter | None:
    """The filter as the tables take it. Raises `invalid_request`."""
    if (request.text is None) == (request.vector is None):
        raise invalid_request("say what to search for: either `text` or `vector`", "text")
    if request.text == "":
        raise invalid_request("`text` is empty: expected at least one character", "text")
    if not 1 <= request.k <= MAX_K:
        raise invalid_request(f"`k` is {request.k}: expected 1 to {MAX_K}", "k")
    if request.threshold is not None and not -1 <= request.threshold <= 1:
        raise invalid_request("`threshold`: expected a cosine, from -1 to 1", "threshold")
    if request.filter is None:
        return None
    where = {field: _choices(value) for field, value in request.filter.items()}
    values = [value for choices in where.values() for value in choices]
    if len(where) > MAX_VALUES or len(values) > MAX_VALUES:
        raise invalid_request(f"`filter` has {len(values)} values: at most {MAX_VALUES} in all", "filter")
    if any(isinstance(value, float) and not math.isfinite(value) for value in values):
        raise invalid_request("`filter` holds a number that is not finite", "filter")
    return where


def _choices(value: Scalar | Sequence[Scalar]) -> list[Scalar]:
    return list(value) if isinstance(value, list) else [value]  # type: ignore[list-item]


def _fitting(collection: Collection, vector: NDArray[np.float32]) -> NDArray[np.float32]:
    if len(vector) != collection.dimensions:
        raise invalid_request(
            f"`vector` has {len(vector)} numbers; collection {collection.name!r} keeps vectors of {collection.space}, which have "
            f"{collection.dimensions}: search with a vector of that space",
            "vector",
        )
    finite = np.isfinite(vector)
    if not finite.all():
        raise invalid_request("`vector` holds a number that is not finite", "vector", int(np.argmin(finite)))
    length = float(np.linalg.norm(vector.astype(np.float64)))
    if length == 0:
        raise invalid_request("`vector` is zero, which is near to nothing", "vector")
    # Of length 1: so no number of it is beyond what Postgres reckons with, and a cosine is the same.
    return (vector / length).astype(np.float32)
