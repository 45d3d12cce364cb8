"""Whose key came with a request."""

from __future__ import annotations

from starlette.requests import Request
from starlette.types import Scope

from domain.errors import GatewayError
from domain.tenancy import Principal
from gateway.auth.authenticator import authenticated
from gateway.http.headers import token_of
from gateway.limits.logins import address_of
from gateway.wire.service import EmbeddingService


async def principal_of(request: Request, service: EmbeddingService) -> Principal:
    """Who is asking. Raises as `authenticate` does."""
    return await authenticate(request.scope, service)


async def authenticate(scope: Scope, service: EmbeddingService) -> Principal:
    """Who is asking. Raises `unauthorized`, or `rate_limited` where that was said to the client's address too often."""
    principal = await authenticate_if_asked(scope, service)
    if principal is None:
        error = GatewayError("unauthorized", "no credential: send 'Authorization: Bearer <key>' or 'X-API-Key: <key>'")
        raise service.failed_logins.judged(error, address_of(scope))
    return principal


async def authenticate_if_asked(scope: Scope, service: EmbeddingService) -> Principal | None:
    """The same; None where no credential was sent."""
    try:
        token = token_of(scope["headers"])
        return None if token is None else await authenticated(service.authenticate, token)
    except GatewayError as error:
        raise service.failed_logins.judged(error, address_of(scope)) from None
