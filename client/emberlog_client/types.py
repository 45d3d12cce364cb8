"""The words of the contract as Python types: what a caller may pass, and what the gateway says about itself."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias

Encoding: TypeAlias = Literal["float32", "float16", "int8", "ubinary"]
"""How vectors travel and arrive. `float32` is exact; the others trade accuracy for bytes (2, 1 and 1/8 byte a number)."""
InputType: TypeAlias = Literal["query", "document", "classification", "clustering"]
FailoverMode: TypeAlias = Literal["same_space", "any", "none"]
Optimize: TypeAlias = Literal["cost", "latency", "quality"]
Truncate: TypeAlias = Literal["error", "end"]
CacheMode: TypeAlias = Literal["use", "refresh", "off"]
Strategy: TypeAlias = Literal["tenant_default", "fixed", "cost", "latency", "quality"]


@dataclass(frozen=True, slots=True)
class Limits:
    """What one connection may ask. The defaults are the contract's; the gateway's own come with `session.opened`."""

    max_message_bytes: int = 16 * 1024 * 1024
    max_inputs: int = 10_000
    max_input_chars: int = 200_000
    max_in_flight: int = 256
    max_in_flight_inputs: int = 20_000
    idempotency_seconds: int = 86_400


@dataclass(frozen=True, slots=True)
class Session:
    """An opened session: its id, and who the gateway takes this client for. `tenant` is None for an installation's key."""

    id: str
    tenant: str | None
    agent: str
    server_name: str
    server_version: str
    limits: Limits


@dataclass(frozen=True, slots=True)
class Preferences:
    """How models are chosen for this agent when a request names none. None leaves a field to the tenant.

    Money is in nano-dollars, latency in milliseconds.
    """

    strategy: Strategy = "tenant_default"
    models: Sequence[str] = ()
    task_models: Mapping[str, str] = field(default_factory=dict)
    required_dimensions: int | None = None
    max_cost_per_request_nano_usd: int | None = None
    monthly_budget_nano_usd: int | None = None
    max_latency_ms: int | None = None

    def to_wire(self) -> dict[str, Any]:
        """The map that travels; absent fields are left out."""
        wire: dict[str, Any] = {
            "strategy": self.strategy,
            "models": list(self.models),
            "task_models": dict(self.task_models),
        }
        for name in (
            "required_dimensions",
            "max_cost_per_request_nano_usd",
            "monthly_budget_nano_usd",
            "max_latency_ms",
        ):
            if (value := getattr(self, name)) is not None:
                wire[name] = value
        return wire


@dataclass(frozen=True, slots=True)
class Store:
    """Keep the vectors for search: one id per text, and one metadata map per text if any is given."""

    collection: str
    ids: Sequence[str]
    metadata: Sequence[Mapping[str, Any]] | None = None

    def to_wire(self, start: int, stop: int) -> dict[str, Any]:
        """The map for texts `start` to `stop` of the call."""
        wire: dict[str, Any] = {"collection": self.collection, "ids": list(self.ids[start:stop])}
        if self.metadata is not None:
            wire["metadata"] = [dict(entry) for entry in self.metadata[start:stop]]
        return wire


@dataclass(frozen=True, slots=True)
class Registration:
    """The gateway's answer to `register`: the agent, and the version its preferences now have."""

    agent: str
    version: int
