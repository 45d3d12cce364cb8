"""`GET /v1/agent`: judge the upgrade, then hand the connection to a session.

What can be refused before the upgrade is accepted is refused as an HTTP answer with the usual error body.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import cast

from starlette.types import Message, Receive, Scope, Send

from domain.errors import GatewayError, invalid_request
from domain.tenancy import Principal
from gateway.errorlog import ErrorLog
from gateway.http.answers import error_answer
from gateway.http.credentials import authenticate_if_asked
from gateway.http.headers import header
from gateway.limits.logins import address_of
from gateway.trace import context_of
from gateway.wire import checks
from gateway.wire.link import Link
from gateway.wire.service import EmbeddingService
from gateway.wire.session import Session
from gateway.wire.sessions import SessionRegistry
from gateway.wire.transport import EXTENSION

SUBPROTOCOL = "emberlog.v1.msgpack"


class AgentEndpoint:
    """The ASGI application of the WebSocket route."""

    def __init__(self, service: EmbeddingService, registry: SessionRegistry) -> None:
        self._service = service
        self._registry = registry
        self._errors = ErrorLog("upgrade")

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Accept or refuse one upgrade; return when its connection is gone."""
        message = await receive()
        if message["type"] != "websocket.connect":
            return
        caller = context_of(header(scope["headers"], b"traceparent"))
        try:
            principal = await self._admit(scope)
        except GatewayError as error:
            await refuse_upgrade(
                send, error, self._errors.note(error, tenant=None, trace=caller[:32] if caller else None)
            )
            return
        link = cast("Link", scope["extensions"][EXTENSION])
        await send({"type": "websocket.accept", "subprotocol": SUBPROTOCOL})
        session = Session(link, self._service, self._registry, principal, caller, address_of(scope))
        known = principal is not None
        link.attach(
            session,
            self._registry.settings.link,
            session.max_message_bytes if known else self._registry.settings.unauthenticated_bytes,
        )
        await link.wait_closed()

    async def _admit(self, scope: Scope) -> Principal | None:
        """The principal of the upgrade's credential, None for a browser's that carries none. Raises GatewayError."""
        if SUBPROTOCOL not in scope["subprotocols"]:
            raise invalid_request(f"the upgrade must offer the subprotocol {SUBPROTOCOL}", "sec-websocket-protocol")
        if self._registry.draining or self._service.draining:
            raise self._registry.draining_error()
        principal = await authenticate_if_asked(scope, self._service)
        if principal is not None:
            checks.may_open(principal)
        if self._registry.full() or (principal is not None and self._registry.tenant_full(principal.tenant)):
            raise GatewayError(
                "rate_limited", "too many connections are open: close some, or try again later", retry_after_ms=1000
            )
        return principal


async def refuse_upgrade(
    send: Send, error: GatewayError, details: Mapping[str, object] | None = None, *, status: int | None = None
) -> None:
    """Answer an upgrade with an HTTP error."""
    code, headers, body = error_answer(error, details, status=status)
    start: Message = {
        "type": "websocket.http.response.start",
        "status": code,
        "headers": [*headers, (b"connection", b"close")],
    }
    await send(start)
    await send({"type": "websocket.http.response.body", "body": body})
