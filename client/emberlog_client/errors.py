"""What can go wrong, as the caller sees it.

* `EmberlogError`
    * `ConnectionFailed`: no gateway answered within the time given; the same call may be tried again with the same id
    * `Unauthorized`: the key is missing, wrong, revoked or expired (HTTP 401, close code 4401)
        * `Forbidden`: the key is good but may not do this (HTTP 403, close code 4403)
    * `RequestRefused`: the gateway answered `error`; `code` says which, `retryable` whether waiting helps
        * `InvalidRequest`: `invalid_request`, `invalid_message`, `type_unsupported`; `details` names the field
        * `InputTooLong`: `input_too_long`; `details["index"]` names the text; `truncate="end"` cuts instead
        * `ModelNotFound`: `model_not_found`, `model_not_enabled`
        * `QuotaExceeded`: `quota_exceeded`, `budget_exceeded`; `details` has `window`, `limit`, `used`, `resets_at`
        * `RateLimited`: `rate_limited`, `too_many_in_flight`, after the client's own retries; `retry_after` in seconds
        * `Unavailable`: `provider_unavailable`, `no_model_available`, `overloaded`, `draining`, `unavailable`, `internal`
        * `ProviderRefused`: `provider_error`; `details["attempts"]` lists who said no
        * `DeadlineExceeded`: `deadline_exceeded`, or the deadline passed here before any answer came
        * `Cancelled`: `cancelled` by someone else than the awaiting task
        * `IdReused`: `id_reused`, `result_expired`; the id belongs to another body, or its vectors are gone
    * `SpaceChanged`: one call was answered in two vector spaces, which must not be mixed; nothing was returned
    * `ProtocolViolation`: the peer does not speak `emberlog.v1.msgpack` as this client does

Every one can be pickled and copied. No message holds a text, a vector or a key.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

_NO_DETAILS: Mapping[str, Any] = MappingProxyType({})


class EmberlogError(Exception):
    """The root of this client's errors. `message` is meant for people."""

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.message = message


class ConnectionFailed(EmberlogError):
    """No connection to the gateway could be made, or kept, within the time given."""


class Unauthorized(EmberlogError):
    """The gateway refused the key. Reconnecting does not help: check the key, or create another."""

    code = "unauthorized"


class Forbidden(Unauthorized):
    """The key is valid, but lacks the scope for this. Use a key that has it."""

    code = "forbidden"


class RequestRefused(EmberlogError):
    """The gateway answered `error`. `retry_after` is in seconds, None when the gateway named none.

    `id` is the id of the request on the wire, None when it never left.
    """

    def __init__(
        self,
        message: str,
        *,
        code: str = "internal",
        retryable: bool = False,
        retry_after: float | None = None,
        details: Mapping[str, Any] | None = None,
        id: str | None = None,  # noqa: A002 - the contract's name
    ) -> None:
        super().__init__(message)
        self.code = code
        self.retryable = retryable
        self.retry_after = retry_after
        self.details: dict[str, Any] = dict(details or _NO_DETAILS)
        self.id = id

    def __str__(self) -> str:
        return f"{self.code}: {self.message}"


class InvalidRequest(RequestRefused):
    """The request itself is wrong; `details` has `field` and, for a list, `index`."""


class InputTooLong(RequestRefused):
    """A text has more tokens than the model takes. Shorten it, or pass `truncate="end"`."""


class ModelNotFound(RequestRefused):
    """No such model for this tenant. The message names the ones there are, or how to enable it."""


class QuotaExceeded(RequestRefused):
    """The tenant's quota or budget is used up until `details["resets_at"]`."""


class RateLimited(RequestRefused):
    """Too many requests, still after the client's retries. Wait `retry_after` seconds."""


class Unavailable(RequestRefused):
    """Nothing could answer now, still after the client's retries. Try the same id later."""


class ProviderRefused(RequestRefused):
    """The provider refused the request for good; `details["attempts"]` says which and why."""


class DeadlineExceeded(RequestRefused):
    """The deadline passed. What had been sent to a provider by then is billed; the same id may be asked again."""

    def __init__(
        self,
        message: str,
        *,
        code: str = "deadline_exceeded",
        retryable: bool = True,
        retry_after: float | None = None,
        details: Mapping[str, Any] | None = None,
        id: str | None = None,  # noqa: A002 - the contract's name
    ) -> None:
        super().__init__(message, code=code, retryable=retryable, retry_after=retry_after, details=details, id=id)


class Cancelled(RequestRefused):
    """The request was cancelled at the gateway."""


class IdReused(RequestRefused):
    """The id is taken by another request, or its result is no longer kept. Use a new id."""


class SpaceChanged(EmberlogError):
    """Parts of one call came back in different vector spaces. Name a `model` and call again."""


class ProtocolViolation(EmberlogError):
    """The gateway and this client disagree about the protocol. Check the address and both versions."""


_BY_CODE: dict[str, type[RequestRefused]] = {
    "invalid_request": InvalidRequest,
    "invalid_message": InvalidRequest,
    "type_unsupported": InvalidRequest,
    "input_too_long": InputTooLong,
    "model_not_found": ModelNotFound,
    "model_not_enabled": ModelNotFound,
    "quota_exceeded": QuotaExceeded,
    "budget_exceeded": QuotaExceeded,
    "rate_limited": RateLimited,
    "too_many_in_flight": RateLimited,
    "provider_unavailable": Unavailable,
    "no_model_available": Unavailable,
    "overloaded": Unavailable,
    "draining": Unavailable,
    "unavailable": Unavailable,
    "internal": Unavailable,
    "provider_error": ProviderRefused,
    "deadline_exceeded": DeadlineExceeded,
    "cancelled": Cancelled,
    "id_reused": IdReused,
    "result_expired": IdReused,
}


def from_message(message: Mapping[str, Any]) -> EmberlogError:
    """The error that an `error` map, of the wire or of an HTTP body's `error`, stands for. Unknown codes are `RequestRefused`."""
    code = str(message.get("code") or "internal")
    text = str(message.get("message") or code)
    if code == "unauthorized":
        return Unauthorized(text)
    if code == "forbidden":
        return Forbidden(text)
    after = message.get("retry_after_ms")
    details = message.get("details")
    name = message.get("id")
    return _BY_CODE.get(code, RequestRefused)(
        text,
        code=code,
        retryable=message.get("retryable") is True,
        retry_after=after / 1000 if isinstance(after, int | float) else None,
        details=details if isinstance(details, Mapping) else None,
        id=name if isinstance(name, str) else None,
    )
