"""Request bodies: read whole, bounded in bytes and time, JSON by their content type."""

from __future__ import annotations

import asyncio
import contextlib

from starlette.types import Receive, Scope

from domain.errors import GatewayError
from gateway.http.answers import HttpError
from gateway.http.headers import header

BODY_SECONDS = 60.0
_DISCARD_SECONDS = 1.0


async def read_json_body(scope: Scope, receive: Receive, limit: int) -> bytes | None:
    """The body, at most `limit` bytes; None when the client went away. Raises GatewayError for another content type or size."""
    kind = header(scope["headers"], b"content-type")
    if kind is not None and kind.partition(";")[0].strip().lower() not in ("application/json", "application/x-json"):
        raise GatewayError(
            "invalid_request",
            "the body has another content type than application/json: send JSON and say so",
            details={"field": "content-type"},
        )
    declared = header(scope["headers"], b"content-length")
    if declared is not None and declared.isdigit() and int(declared) > limit:
        if header(scope["headers"], b"expect") is None:
            await _discard(receive)
        raise _too_large(limit)
    parts: list[bytes] = []
    size = 0
    try:
        async with asyncio.timeout(BODY_SECONDS):
            while True:
                message = await receive()
                if message["type"] != "http.request":
                    return None
                part = message.get("body", b"")
                size += len(part)
                if size > limit:
                    parts.clear()
                    if message.get("more_body", False):
                        await _discard(receive)
                    raise _too_large(limit)
                parts.append(part)
                if not message.get("more_body", False):
                    return b"".join(parts)
    except TimeoutError:
        raise HttpError(408, f"the body did not arrive within {BODY_SECONDS:.0f} s") from None


async def _discard(receive: Receive) -> None:
    """Read the rest into nothing for a moment: an answer that closes on unread bytes is lost to the reset they cause."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(_DISCARD_SECONDS):
            while (await receive()).get("more_body", False):
                pass


def not_json(failure: Exception) -> GatewayError:
    """A body that is no JSON, or nested too deeply."""
    why = "nested too deeply" if isinstance(failure, RecursionError) else str(failure)
    return GatewayError(
        "invalid_message", f"the body is not valid JSON ({why}): expected one object", details={"field": "body"}
    )


def _too_large(limit: int) -> GatewayError:
    return HttpError(413, f"the body is over {limit} bytes: send fewer texts in a request", field="body")
