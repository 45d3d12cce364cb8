"""`/healthz`, `/readyz` and `/metrics`."""

from __future__ import annotations

import ipaddress
from typing import Any, Literal

import msgspec
from prometheus_client import CollectorRegistry
from prometheus_client.exposition import choose_encoder
from starlette.requests import Request
from starlette.responses import Response

from gateway.http.credentials import principal_of
from gateway.wire.service import EmbeddingService
from gateway.wire.sessions import SessionRegistry

_FORWARDED = (b"x-forwarded-for", b"x-real-ip", b"forwarded", b"via")


class Health(msgspec.Struct, frozen=True):
    """The process answers."""

    status: Literal["ok"] = "ok"


class Readiness(msgspec.Struct, frozen=True):
    """Whether requests can be served, and each part's state."""

    status: Literal["ready", "draining", "not_ready"]
    checks: dict[str, Any]


class HealthRoutes:
    """Routes for operators and their machines."""

    def __init__(self, service: EmbeddingService, registry: SessionRegistry, metrics: CollectorRegistry) -> None:
        self._service = service
        self._registry = registry
        self._metrics = metrics

    async def healthz(self, request: Request) -> Response:
        """Liveness."""
        return Response(msgspec.json.encode(Health()), media_type="application/json")

    async def readyz(self, request: Request) -> Response:
        """Readiness: 200 or 503."""
        ready, checks = await self._service.readiness()
        draining = self._registry.draining or self._service.draining
        body = Readiness("draining" if draining else "ready" if ready else "not_ready", checks)
        return Response(
            msgspec.json.encode(body), 200 if ready and not draining else 503, media_type="application/json"
        )

    async def metrics(self, request: Request) -> Response:
        """Prometheus exposition, in the format the scraper asks for."""
        if not _over_loopback(request):
            (await principal_of(request, self._service)).require("operator")
        encoder, kind = choose_encoder(request.headers.get("accept", ""))
        return Response(encoder(self._metrics), headers={"content-type": kind})


def _over_loopback(request: Request) -> bool:
    """Whether the peer is on this machine and speaks for itself: a proxy here may speak for anyone."""
    if request.client is None or any(name in _FORWARDED for name, _ in request.scope["headers"]):
        return False
    try:
        address = ipaddress.ip_address(request.client.host)
    except ValueError:
        return False
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return (mapped or address).is_loopback
