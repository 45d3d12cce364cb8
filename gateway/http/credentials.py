"""Whose key came with a request."""

from __future__ import annotations

from starlette.requests import Request

from domain.errors import GatewayError
from domain.tenancy import Principal
from gateway.auth.authenticator import authenticated
from gateway.http.headers import token_of
from gateway.wire.service import EmbeddingService


async def principal_of(request: Request, service: EmbeddingService) -> Principal:
    """Who is asking. Raises `unauthorized`."""
    token = token_of(request.scope["headers"])
    if token is None:
        raise GatewayError("unauthorized", "no credential: send 'Authorization: Bearer <key>' or 'X-API-Key: <key>'")
    return await authenticated(service.authenticate, token)
