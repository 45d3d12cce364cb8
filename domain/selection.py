"""Which model serves a request: a pure function of the request, the agent's preferences and the catalogue, with its reasons.

Order: the model asked for, else the agent's task model, its ranked models, the tenant's default, any served model by strategy.
"""

from __future__ import annotations

from collections.abc import Iterator

import msgspec

from domain.catalogue import Catalogue, Model
from domain.errors import GatewayError, invalid_request
from domain.events import Preferences

STRATEGIES = ("tenant_default", "fixed", "cost", "latency", "quality")


class PassedOver(msgspec.Struct, frozen=True):
    """A model that was considered and not chosen, and why."""

    model: str
    reason: str


class Selection(msgspec.Struct, frozen=True):
    """The chosen model, the size of its vectors, their space, why it was chosen, and what was passed over."""

    model: Model
    dimensions: int
    space: str
    reason: str
    passed_over: tuple[PassedOver, ...] = ()


def select(
    catalogue: Catalogue,
    *,
    requested: str | None,
    dimensions: int | None,
    input_type: str | None,
    task: str | None = None,
    optimize: str | None = None,
    preferences: Preferences | None = None,
    default_model: str | None = None,
) -> Selection:
    """Choose. Raises `model_not_found`, `invalid_request` (dimensions the requested model lacks) or `no_model_available`."""
    if requested is not None:
        model = catalogue.resolve(requested)
        if model is None:
            raise GatewayError(
                "model_not_found",
                f"there is no model {requested[:128]!r}: choose one of {', '.join(m.id for m in catalogue.served()) or 'none served'}",
                details={"field": "model"},
            )
        if not catalogue.candidates(model.id):
            raise GatewayError(
                "no_model_available",
                f"no configured endpoint serves {model.id!r}: add one under [[endpoints]] or choose one of "
                f"{', '.join(m.id for m in catalogue.served()) or 'none served'}",
                details={"model": model.id},
            )
        if dimensions is not None and not model.supports(dimensions):
            raise invalid_request(
                f"model {model.id!r} has no vectors of {dimensions} dimensions: it supports {model.dimensions_text()}",
                "dimensions",
            )
        return _selected(model, dimensions, input_type, "requested", ())
    passed: list[PassedOver] = []
    seen: set[str] = set()
    wanted = dimensions if dimensions is not None else (preferences.required_dimensions if preferences else None)
    for name, reason in _ranked(catalogue, task, optimize, preferences, default_model):
        model = catalogue.resolve(name)
        if name in seen or (model is not None and model.id in seen):
            continue
        seen.add(model.id if model else name)
        if model is None:
            passed.append(PassedOver(name, "not in the catalogue"))
        elif not catalogue.candidates(model.id):
            passed.append(PassedOver(model.id, "no configured endpoint serves it"))
        elif wanted is not None and not model.supports(wanted):
            passed.append(PassedOver(model.id, f"has no vectors of {wanted} dimensions"))
        else:
            return _selected(model, wanted, input_type, reason, tuple(passed))
    reasons = [{"model": p.model, "reason": p.reason} for p in passed]
    raise GatewayError(
        "no_model_available",
        "configuration leaves no model for this request: "
        + ("; ".join(f"{p.model}: {p.reason}" for p in passed) or "no endpoint is configured"),
        details={"reasons": reasons},
    )


def _selected(
    model: Model, dimensions: int | None, input_type: str | None, reason: str, passed: tuple[PassedOver, ...]
) -> Selection:
    size = model.dimensions if dimensions is None else dimensions
    return Selection(model, size, model.space(size, input_type), reason, passed)


def _ranked(
    catalogue: Catalogue,
    task: str | None,
    optimize: str | None,
    preferences: Preferences | None,
    default_model: str | None,
) -> Iterator[tuple[str, str]]:
    strategy = preferences.strategy if preferences else "tenant_default"
    if preferences is not None:
        if task is not None and task in preferences.task_models:
            yield preferences.task_models[task], "task_model"
        for name in preferences.models:
            yield name, "agent_model"
        if strategy == "fixed" and optimize is None:
            return
    if default_model is not None and strategy == "tenant_default" and optimize is None:
        yield default_model, "tenant_default"
    order = optimize or strategy
    served = catalogue.served()
    if order == "quality":
        served.sort(key=lambda m: (m.rank, _price(catalogue, m), m.id))
    else:
        served.sort(key=lambda m: (_price(catalogue, m), m.id))
    for model in served:
        yield model.id, f"any_{order}" if order in ("cost", "latency", "quality") else "any"


def _price(catalogue: Catalogue, model: Model) -> float:
    prices = [c.offering.price.unit_pico_usd for c in catalogue.candidates(model.id)]
    return min((float(p) if p is not None else float("inf") for p in prices), default=float("inf"))
