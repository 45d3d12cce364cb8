"""Control planes with a tenant and some models, for tests of decisions."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from domain.decision import Decision
from domain.events import ModelRegistered, ModelSpec, OfferingSpec, TenantCreated
from domain.plane import ControlPlane

NOW = 1_800_000_000.0


def registered(name: str, state: str = "available", **spec: Any) -> ModelRegistered:
    """A model that the provider `p` offers, of 8 dimensions and at most 100 tokens unless said otherwise."""
    facts = ModelSpec(**{"version": "1", "dimensions": 8, "max_tokens": 100, **spec})
    return ModelRegistered(name, facts, [OfferingSpec("p", name, 16, 1000)], state=state)


def plane_of(*models: ModelRegistered, tenants: Iterable[str] = ("acme",)) -> ControlPlane:
    """A plane where these tenants and models exist."""
    plane = ControlPlane()
    for tenant in tenants:
        fold(plane, [Decision(tenant, f"tenant/{tenant}", TenantCreated(tenant))])
    fold(plane, [Decision("_system", f"model/{m.model}", m) for m in models])
    return plane


def fold(plane: ControlPlane, decisions: Sequence[Decision]) -> None:
    """What was decided is in the log now."""
    for decision in decisions:
        version = plane.versions.get(decision.stream, 0) + 1
        plane.apply(plane.position + 1, decision.tenant, decision.stream, version, decision.data)
