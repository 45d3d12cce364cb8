"""`POST /api/v1/embeddings/search`: the nearest rows of a collection to a text or a vector."""

from __future__ import annotations

import msgspec

from gateway.collections.searching import MAX_K, SearchAnswer, SearchRequest, vector_of_numbers
from gateway.http.api.route import ApiRoute, Call
from gateway.wire.messages import RowFilter


class SearchBody(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """See `SearchRequest`: a `text` or a `vector`; `filter` has a value, or a list of which one must be, for each field of the metadata."""

    collection: str
    text: str | None = None
    vector: list[float] | None = None
    k: int = 10
    filter: RowFilter | None = None
    threshold: float | None = None


async def search(call: Call) -> SearchAnswer:
    """Search."""
    body, principal = call.body, call.principal
    vector = None if body.vector is None else vector_of_numbers(body.vector)
    request = SearchRequest(body.collection, body.text, vector, body.k, body.filter, body.threshold)
    return await call.service.searches.search(principal, principal.default_agent, request)


ROUTES = (
    ApiRoute(
        method="POST",
        path="/api/v1/embeddings/search",
        name="searchCollection",
        summary=f"The rows of a collection that are nearest to a text, which is billed as any request, or to a vector; at most {MAX_K}",
        tag="collections",
        handler=search,
        body=SearchBody,
        answer=SearchAnswer,
        scopes=("agent",),
        own=True,
        versioned=False,
    ),
)
