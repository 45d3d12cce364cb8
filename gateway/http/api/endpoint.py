"""One route of the management API at work: who asks, may they, what do they want, do it, answer."""

from __future__ import annotations

import msgspec
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from domain.errors import GatewayError, invalid_request
from gateway.http.api.body import MAX_BYTES, decode
from gateway.http.api.route import Answer, ApiRoute, Call, Nothing, tenant_of
from gateway.http.body import read_json_body
from gateway.http.credentials import principal_of
from gateway.http.query import Query
from gateway.wire.service import EmbeddingService

WAIT_SECONDS = 10.0
"""How long a read waits for the control plane to reach `after_position`."""


class ApiEndpoint:
    """The ASGI application of one route."""

    def __init__(self, service: EmbeddingService, route: ApiRoute) -> None:
        self._service = service
        self._route = route
        self._known = tuple(parameter.name for parameter in route.parameters())

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        response = await self._answer(Request(scope, receive), receive)
        if response is not None:
            await response(scope, receive, send)

    async def _answer(self, request: Request, receive: Receive) -> Response | None:
        service, route = self._service, self._route
        principal = await principal_of(request, service)
        route.admit(principal)
        query = Query(request, self._known)
        for name, value in request.path_params.items():
            if "\0" in value:
                raise invalid_request(f"`{name}`, in the path, holds a NUL character, which no text may", name)
        if not route.writes and (after := query.text("after_position")) is not None:
            await self._reach(after)
        tenant = tenant_of(route, principal, query, service.control.plane)
        body = None
        if route.body is not None:
            data = await read_json_body(request.scope, receive, MAX_BYTES)
            if data is None:
                return None
            body = decode(data, route.body)
        call = Call(service, principal, query, request.path_params, tenant, body)
        answer = await route.handler(call)
        if isinstance(answer, Response):
            return answer
        if not isinstance(answer, Answer):
            answer = Answer(answer)
        status = route.statuses[0] if answer.status is None else answer.status
        assert status in route.statuses
        headers = dict(answer.headers)
        if call.written is not None:
            headers["x-emberlog-position"] = await service.reads.cursor(call.written.position)
        if route.answer is Nothing:
            return Response(status_code=status, headers=headers)
        return Response(
            msgspec.json.encode(answer.body), status_code=status, headers=headers, media_type="application/json"
        )

    async def _reach(self, cursor: str) -> None:
        if self._route.view is not None:
            await self._service.reads.reaches(self._route.view, cursor)
        position = await self._service.reads.position(cursor, "after_position")
        try:
            await self._service.plane_reaches(position, WAIT_SECONDS)
        except TimeoutError:
            raise GatewayError(
                "unavailable",
                f"this gateway has not come to `after_position` within {WAIT_SECONDS:.0f} s: try again",
                retry_after_ms=1000,
            ) from None
