"""Error answers over HTTP: one shape for all of them, understood by OpenAI's clients."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import msgspec

from domain.errors import GatewayError

_TYPES = {401: "authentication_error", 402: "insufficient_quota", 403: "permission_error", 429: "rate_limit_error"}

Headers = list[tuple[bytes, bytes]]


class HttpError(GatewayError):
    """A refusal that HTTP has a finer status for than its code's: 405, 413, 426."""

    def __init__(self, status: int, message: str, *, code: str = "invalid_request", field: str | None = None) -> None:
        super().__init__(code, message, details=None if field is None else {"field": field})
        self.http_status = status


def http_status(error: GatewayError) -> int:
    """The HTTP status of an error."""
    return error.http_status if isinstance(error, HttpError) else error.status


class ErrorInfo(msgspec.Struct, frozen=True):
    """What went wrong. `code` is one of the protocol's; `param` the field at fault; `type` OpenAI's grouping of errors."""

    message: str
    type: str
    code: str
    param: str | None = None
    details: dict[str, Any] | None = None


class ErrorBody(msgspec.Struct, frozen=True):
    """The body of every answer that is an error."""

    error: ErrorInfo


def error_type(status: int) -> str:
    """OpenAI's name for the group an HTTP status belongs to."""
    return _TYPES.get(status) or ("server_error" if status >= 500 else "invalid_request_error")


def error_answer(
    error: GatewayError, details: Mapping[str, Any] | None = None, *, status: int | None = None
) -> tuple[int, Headers, bytes]:
    """Status, headers and body. `details` replaces the error's own, `status` the one it has."""
    status = http_status(error) if status is None else status
    shown = dict(error.details or {} if details is None else details)
    param = shown.get("field")
    body = msgspec.json.encode(
        ErrorBody(
            ErrorInfo(
                message=error.message, type=error_type(status), code=error.code, param=param, details=shown or None
            )
        )
    )
    headers: Headers = [
        (b"content-type", b"application/json"),
        (b"content-length", str(len(body)).encode()),
        # OpenAI's clients retry every 409 and 5xx unless told otherwise.
        (b"x-should-retry", b"true" if error.retryable else b"false"),
    ]
    if error.retry_after_ms is not None:
        headers.append((b"retry-after", str(max(1, math.ceil(error.retry_after_ms / 1000))).encode()))
        headers.append((b"retry-after-ms", str(error.retry_after_ms).encode()))
    if status == 401:
        headers.append((b"www-authenticate", b"Bearer"))
    return status, headers, body
