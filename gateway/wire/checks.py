"""What the wire itself judges of a decoded message: rules that need no catalogue, tenant or log."""

from __future__ import annotations

from domain.errors import GatewayError, invalid_request
from domain.events import Preferences
from domain.selection import STRATEGIES
from domain.tenancy import Principal
from gateway.wire.messages import EmbeddingGenerate, Limits

METADATA_BYTES = 2048


def generate(message: EmbeddingGenerate) -> None:
    """Raise GatewayError for what is wrong whatever the model."""
    if message.deadline_ms is not None and message.deadline_ms < 1:
        raise invalid_request("`deadline_ms` must be at least 1 millisecond; leave it out for 60,000", "deadline_ms")
    if message.metadata is not None:
        metadata(message.metadata)


def metadata(values: dict[str, str] | None) -> None:
    """Raise `invalid_request` for metadata of more than 2 KiB."""
    if values and sum(len(k.encode()) + len(v.encode()) for k, v in values.items()) > METADATA_BYTES:
        raise invalid_request(f"`metadata` may hold at most {METADATA_BYTES} bytes of strings", "metadata")


def preferences(stated: Preferences) -> None:
    """Raise `invalid_request` for a strategy there is none of, or a bound below 1."""
    if stated.strategy not in STRATEGIES:
        raise invalid_request(
            f"`preferences.strategy`: expected one of {', '.join(STRATEGIES)}", "preferences.strategy"
        )
    for field in ("required_dimensions", "max_cost_per_request_nano_usd", "monthly_budget_nano_usd", "max_latency_ms"):
        value = getattr(stated, field)
        if value is not None and not 1 <= value < 2**63:
            raise invalid_request(f"`preferences.{field}`: expected a positive 64-bit integer", f"preferences.{field}")


def may_open(principal: Principal) -> None:
    """Raise `forbidden` unless the credential may hold an agent's session."""
    principal.require("agent")
    if principal.tenant is None:
        raise GatewayError(
            "forbidden", "an installation key belongs to no tenant: embed with a tenant's key of scope agent"
        )


def may_speak_for(principal: Principal, agent: str, field: str) -> None:
    """Raise `forbidden`, naming `field`, where the credential is bound to another agent."""
    if principal.agent is not None and principal.agent != agent:
        raise GatewayError(
            "forbidden",
            f"this key speaks for the agent {principal.agent!r} alone: give that one, or use another key",
            details={"field": field},
        )


def too_many_in_flight(limits: Limits) -> GatewayError:
    """The connection has as much in flight as it may."""
    return GatewayError(
        "too_many_in_flight",
        f"this connection has too much in flight: at most {limits.max_in_flight} requests and "
        f"{limits.max_in_flight_inputs} inputs at a time; wait for answers, then send it again",
        details={"max_in_flight": limits.max_in_flight, "max_in_flight_inputs": limits.max_in_flight_inputs},
        retry_after_ms=100,
    )


def internal() -> GatewayError:
    """Something of ours broke."""
    return GatewayError(
        "internal", "the gateway failed on this request: send it again with the same id, and report the trace id"
    )
