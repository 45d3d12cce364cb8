"""`GET /api/v1/events`: the events within a key's reach, page by page from a cursor on."""

from __future__ import annotations

import asyncio
from collections.abc import Set

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from adapters.postgres.event_scan import EventFilter
from domain.errors import invalid_request
from domain.events import EVENT_TYPES
from domain.ports.event_log import StoredEvent
from gateway.event_document import EventDocument, event_document
from gateway.http.accept import JSON, NDJSON, negotiate
from gateway.http.credentials import principal_of
from gateway.http.query import Query
from gateway.reads.reach import require_whole_tenant, tenants_within
from gateway.wire.service import EmbeddingService

PARAMETERS = ("after", "limit", "types", "streams", "tenants")
DEFAULT_LIMIT, MAX_LIMIT = 100, 1000
_AT_ONCE = 100
"""Events encoded between two turns of the loop."""


class EventsAnswer(msgspec.Struct, frozen=True):
    """A page of events, in the log's order; the header `x-emberlog-cursor` says where to go on, also from an empty page."""

    events: list[EventDocument]


class EventRoutes:
    """The route. A tenant's key needs the scope billing or admin and sees its tenant; an installation key needs operator."""

    def __init__(self, service: EmbeddingService) -> None:
        self._service = service

    async def list(self, request: Request) -> Response:
        """One page."""
        principal = await principal_of(request, self._service)
        require_whole_tenant(principal)
        kind = negotiate(request.headers.get("accept"), (JSON, NDJSON))
        query = Query(request, PARAMETERS)
        wanted = EventFilter(
            tenants=tenants_within(principal, query.names("tenants"), "tenants"),
            types=_types(query),
            streams=query.names("streams"),
        )
        limit = query.integer("limit", DEFAULT_LIMIT, 1, MAX_LIMIT)
        page = await self._service.reads.events(principal, query.text("after") or "", limit, wanted)
        shredded = self._service.reads.shredded
        documents = await _encoded(page.events, shredded, for_tenant=principal.tenant is not None)
        if kind == NDJSON:
            body = b"".join(document + b"\n" for document in documents)
        else:
            body = b'{"events":[' + b",".join(documents) + b"]}"
        return Response(body, headers={"x-emberlog-cursor": page.cursor, "vary": "accept"}, media_type=kind)


def _types(query: Query) -> frozenset[str] | None:
    types = query.names("types")
    for name in sorted(types or ()):
        if name not in EVENT_TYPES:
            raise invalid_request(
                f"`types`: there are no events {name[:64]!r}; docs/events.md lists those there are", "types"
            )
    return types


async def _encoded(events: list[StoredEvent], shredded: Set[str], *, for_tenant: bool) -> list[bytes]:
    encoded: list[bytes] = []
    for event in events:
        document = event_document(event, for_tenant=for_tenant, shredded=event.tenant in shredded)
        encoded.append(msgspec.json.encode(document))
        if len(encoded) % _AT_ONCE == 0:
            await asyncio.sleep(0)
    return encoded
