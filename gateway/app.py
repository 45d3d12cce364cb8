"""The ASGI application: every route of the gateway on one service."""

from __future__ import annotations

from prometheus_client import CollectorRegistry
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route, WebSocketRoute
from starlette.types import Receive, Scope, Send

from domain.errors import GatewayError
from gateway.errorlog import ErrorLog
from gateway.http.answers import HttpError, error_answer, http_status
from gateway.http.api.endpoint import ApiEndpoint
from gateway.http.api.table import ROUTES as API_ROUTES
from gateway.http.embeddings import EmbeddingsEndpoint
from gateway.http.events import EventRoutes
from gateway.http.headers import header
from gateway.http.health import HealthRoutes
from gateway.http.models import ModelRoutes
from gateway.http.openapi import OpenApiRoute
from gateway.http.projections import ProjectionRoutes
from gateway.http.usage import UsageRoutes
from gateway.trace import new_trace_id, trace_id_of, traceparent
from gateway.wire import checks
from gateway.wire.service import EmbeddingService
from gateway.wire.sessions import SessionRegistry
from gateway.wire.upgrade import AgentEndpoint, refuse_upgrade


def build_app(
    service: EmbeddingService, metrics: CollectorRegistry, registry: SessionRegistry | None = None
) -> Starlette:
    """The application. `registry` is needed by whoever drains the sessions before a restart."""
    registry = registry or SessionRegistry(service)
    models, health = ModelRoutes(service), HealthRoutes(service, registry, metrics)
    errors = _Errors()
    app = Starlette(
        routes=[
            WebSocketRoute("/v1/agent", AgentEndpoint(service, registry)),
            Route("/v1/agent", _upgrade_required, methods=["GET"]),
            Route("/v1/embeddings", EmbeddingsEndpoint(service, registry), methods=["POST"]),
            Route("/v1/models", models.list, methods=["GET"]),
            Route("/v1/models/{model:path}", models.one, methods=["GET"]),
            Route("/api/v1/events", EventRoutes(service).list, methods=["GET"]),
            Route("/api/v1/usage", UsageRoutes(service).list, methods=["GET"]),
            Route("/api/v1/projections", ProjectionRoutes(service).list, methods=["GET"]),
            *(
                Route(path, ApiEndpoint(service, route), methods=[route.method])
                for route in API_ROUTES
                for path in (route.path, *route.aliases)
            ),
            Route("/healthz", health.healthz, methods=["GET"]),
            Route("/readyz", health.readyz, methods=["GET"]),
            Route("/metrics", health.metrics, methods=["GET"]),
            Route("/openapi.json", OpenApiRoute(registry.server["version"]), methods=["GET"]),
        ],
        exception_handlers={GatewayError: errors.refusal, HTTPException: errors.http, Exception: errors.internal},
    )
    app.router.redirect_slashes = False
    app.router.default = _not_found
    return app


class _Errors:
    """Turns exceptions of the routes into the one error shape."""

    def __init__(self) -> None:
        self._log = ErrorLog("http")

    async def refusal(self, request: Request, error: Exception) -> Response:
        assert isinstance(error, GatewayError)
        return self._answer(request, error)

    async def http(self, request: Request, error: Exception) -> Response:
        assert isinstance(error, HTTPException)
        headers = dict(error.headers or {})
        if error.status_code == 405:
            refusal = HttpError(
                405, f"{request.method} is not allowed here: use {headers.get('Allow', 'another method')}"
            )
        elif error.status_code == 404:
            refusal = HttpError(404, "there is no such route: see /openapi.json", code="not_found")
        else:
            refusal = HttpError(error.status_code, error.detail)
        return self._answer(request, refusal, headers)

    async def internal(self, request: Request, error: Exception) -> Response:
        return self._answer(request, checks.internal(), cause=error)

    def _answer(
        self, request: Request, error: GatewayError, extra: dict[str, str] | None = None, cause: Exception | None = None
    ) -> Response:
        trace = trace_id_of(request.headers.get("traceparent")) or new_trace_id()
        details = self._log.note(error, tenant=None, trace=trace, cause=cause, route=request.url.path[:128])
        if error.code != "internal":
            details.pop("trace", None)
        status, headers, body = error_answer(error, details, status=http_status(error))
        response = Response(body, status, headers=extra)
        response.raw_headers[:] = [
            (k, v) for k, v in response.raw_headers if k not in (b"content-length", b"content-type")
        ]
        response.raw_headers += [*headers, (b"traceparent", traceparent(trace).encode())]
        return response


async def _upgrade_required(request: Request) -> Response:
    raise HTTPException(
        426, "this route speaks WebSocket: upgrade, offering emberlog.v1.msgpack", headers={"upgrade": "websocket"}
    )


async def _not_found(scope: Scope, receive: Receive, send: Send) -> None:
    if scope["type"] == "websocket":
        await receive()
        await refuse_upgrade(send, GatewayError("not_found", "there is no such route: agents connect to /v1/agent"))
        return
    raise HTTPException(404, header(scope["headers"], b"host") or "")
