"""`GET /api/v1/projections`: where each view of the log stands."""

from __future__ import annotations

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from gateway.http.credentials import principal_of
from gateway.http.query import Query
from gateway.projection_document import ProjectionDocument
from gateway.wire.service import EmbeddingService


class ProjectionsAnswer(msgspec.Struct, frozen=True):
    """Every view."""

    projections: list[ProjectionDocument]


class ProjectionRoutes:
    """The route, for operators' keys."""

    def __init__(self, service: EmbeddingService) -> None:
        self._service = service

    async def list(self, request: Request) -> Response:
        """All views."""
        principal = await principal_of(request, self._service)
        principal.require("operator")
        Query(request, ())
        answer = ProjectionsAnswer(await self._service.reads.projections(principal))
        return Response(msgspec.json.encode(answer), media_type="application/json")
