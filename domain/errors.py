"""What can go wrong, in the protocol's codes: one exception, one table of codes.

`GatewayError` is what every refusal on the wire is made from. A message says what was wrong, what was expected and what to do.
"""

from __future__ import annotations

from typing import Any

CODES: dict[str, tuple[int, bool]] = {
    "invalid_message": (400, False),
    "unknown_type": (400, False),
    "invalid_request": (400, False),
    "input_too_long": (400, False),
    "invalid_cursor": (400, False),
    "invalid_config": (400, False),
    "type_unsupported": (400, False),
    "unauthorized": (401, False),
    "forbidden": (403, False),
    "not_found": (404, False),
    "model_not_found": (404, False),
    "id_reused": (409, False),
    "model_exists": (409, False),
    "version_conflict": (409, False),
    "subscription_exists": (409, False),
    "subscription_taken": (409, False),
    "result_expired": (409, False),
    "resource_constraint": (409, False),
    "model_not_enabled": (403, False),
    "quota_exceeded": (402, False),
    "budget_exceeded": (402, False),
    "rate_limited": (429, True),
    "too_many_in_flight": (429, True),
    "no_model_available": (503, True),
    "overloaded": (503, True),
    "draining": (503, True),
    "unavailable": (503, True),
    "provider_unavailable": (502, True),
    "provider_error": (502, False),
    "reload_failed": (502, False),
    "deadline_exceeded": (504, True),
    "cancelled": (499, False),
    "internal": (500, True),
}
"""Code -> (HTTP status, retryable)."""


class GatewayError(Exception):
    """A refusal or failure that its sender is told about. `code` is one of `CODES`; `retry_after_ms` only where it applies."""

    def __init__(
        self, code: str, message: str, *, details: dict[str, Any] | None = None, retry_after_ms: int | None = None
    ) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.details = details
        self.retry_after_ms = retry_after_ms

    @property
    def status(self) -> int:
        """The HTTP status of this code."""
        return CODES[self.code][0]

    @property
    def retryable(self) -> bool:
        """Whether the same request may succeed later, unchanged."""
        return CODES[self.code][1]


def invalid_request(message: str, field: str, index: int | None = None) -> GatewayError:
    """`invalid_request` naming the field, and the index of the input where one is at fault."""
    details: dict[str, Any] = {"field": field}
    if index is not None:
        details["index"] = index
    return GatewayError("invalid_request", message, details=details)
