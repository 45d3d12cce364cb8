"""What askers are told where more than one place has to say it."""

from __future__ import annotations

from domain.errors import GatewayError
from domain.ports.event_log import InstanceFenced
from domain.upcasters import UnknownSchema


def draining() -> GatewayError:
    """New requests go elsewhere."""
    return GatewayError(
        "draining", "this gateway is shutting down: send the request again on a new connection", retry_after_ms=0
    )


def id_reused(*, in_flight: bool = False) -> GatewayError:
    """The id already stands for another body."""
    state = "is in flight" if in_flight else "was used"
    return GatewayError(
        "id_reused",
        f"this id {state} with another body: an id stands for one request; use a new id for a new request",
        details={"field": "id"},
    )


def overloaded() -> GatewayError:
    """The appender's queue is full."""
    return GatewayError("overloaded", "the event log's queue is full: slow down and try again", retry_after_ms=500)


def log_error(error: Exception) -> GatewayError:
    """The log did not take an event, or holds one that cannot be read here."""
    if isinstance(error, InstanceFenced):
        return GatewayError(
            "unavailable", "this gateway lost its lease and starts anew: send the request again", retry_after_ms=500
        )
    if isinstance(error, UnknownSchema):
        return GatewayError(
            "unavailable",
            "a gateway of a newer release took this id: send the request again, on a new connection that may reach such a gateway",
            retry_after_ms=1000,
        )
    return GatewayError("unavailable", "the event log cannot be reached: try again shortly", retry_after_ms=1000)


def shredded() -> GatewayError:
    """The tenant's key was destroyed, and its API keys with it."""
    return GatewayError("unauthorized", "the tenant was shredded: its data is gone, and no key of it is valid any more")


def internal(trace: str) -> GatewayError:
    """A defect of ours; `trace` leads its operator to the log line."""
    return GatewayError(
        "internal", "the gateway failed; its operator finds why by this trace id", details={"trace": trace}
    )
