"""Deciding on models of the catalogue: registering, changing and stepping through the lifecycle, as events, or why it cannot be."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import msgspec

from domain.decision import Decision
from domain.errors import GatewayError
from domain.events import (
    SYSTEM_TENANT,
    EventData,
    ModelRegistered,
    ModelSpec,
    ModelStateChanged,
    ModelUpdated,
    ModelValidated,
    OfferingSpec,
)
from domain.model_catalog import CatalogModel, changed, frozen_changes
from domain.model_config import check_model
from domain.model_lifecycle import AVAILABLE, DEPRECATED, GRACE_DAYS, REMOVED, TESTING, after
from domain.problems import Problems

if TYPE_CHECKING:
    from domain.plane import ControlPlane

MAX_GRACE_DAYS = 3650
DAY_SECONDS = 86_400
OPERATOR = "operator"


class Step(msgspec.Struct, frozen=True):
    """A step of the lifecycle that somebody wants: `test`, `available`, `unavailable`, `deprecate` or `remove`.

    `grace_days` goes with `deprecate`; None: the usual ones.
    """

    name: str
    reason: str | None = None
    grace_days: int | None = None


def model_stream(model: str) -> str:
    """The stream of a model's events."""
    return f"model/{model}"


def model_of(plane: ControlPlane, name: str) -> CatalogModel:
    """The model of this id or alias. Raises `model_not_found`."""
    found = plane.models.resolve(name)
    if found is None:
        raise GatewayError(
            "model_not_found",
            f"the catalogue has no model {name[:128]!r}: `emberlog models list` and GET /api/v1/models show what it has",
            details={"field": "model_id"},
        )
    return found


def decide_register(
    plane: ControlPlane, model: str, spec: ModelSpec, offerings: Sequence[OfferingSpec], *, actor: str
) -> list[Decision]:
    """Register a model, as a draft. Nothing where it is there with the same facts. Raises `invalid_config`, `model_exists`."""
    problems = Problems()
    check_model(problems, model, spec, offerings)
    problems.check(f"model {model[:40]!r}")
    known = plane.models.models.get(model)
    if known is not None:
        if known.state != REMOVED and known.spec == spec and _by_provider(known.offerings) == _by_provider(offerings):
            return []
        raise GatewayError(
            "model_exists",
            f"model {model!r} was removed from the catalogue, and ids are not used again: take another"
            if known.state == REMOVED
            else f"model {model!r} is in the catalogue with other facts: change those, or take another id",
            details={"field": "model_id", "state": known.state},
        )
    _check_free(plane, model, [model, *spec.aliases])
    data = ModelRegistered(model=model, spec=spec, offerings=list(offerings), origin=OPERATOR, actor=actor)
    return [Decision(SYSTEM_TENANT, model_stream(model), data)]


def decide_change(
    plane: ControlPlane,
    name: str,
    facts: Mapping[str, Any],
    steps: Sequence[Step] = (),
    *,
    now: float,
    actor: str,
) -> list[Decision]:
    """Change facts of a model (fields of `ModelSpec`, `offerings`), then step through its lifecycle; what is so already is left out.

    `now` is in seconds since the epoch. Raises `model_not_found`, `invalid_config`, `model_exists` for an alias that is taken, and
    `resource_constraint` for a step that the model's state, or its use by tenants, does not allow.
    """
    model = model_of(plane, name)
    decisions: list[EventData] = []
    updated = _updated(plane, model, facts, actor)
    if updated is not None:
        decisions.append(updated)
        model = changed(model, updated)
    for step in steps:
        stepped = _stepped(plane, model, step, now, actor)
        if stepped is not None:
            decisions.append(stepped)
            model = changed(model, stepped)
    return [Decision(SYSTEM_TENANT, model_stream(model.id), data) for data in decisions]


def decide_validated(plane: ControlPlane, data: ModelValidated) -> list[Decision]:
    """What a validation found: a model in testing becomes available, or a draft again. Raises `resource_constraint` where it is not in testing."""
    model = model_of(plane, data.model)
    state = after(model.id, model.state, "pass" if data.passed else "fail")
    moved = ModelStateChanged(
        model=model.id,
        state=state,
        previous=model.state,
        reason="validation passed" if data.passed else "validation failed",
        actor=data.actor,
    )
    return [Decision(SYSTEM_TENANT, model_stream(model.id), event) for event in (data, moved)]


def check_testing(plane: ControlPlane, name: str) -> CatalogModel:
    """The model, if it can be validated now. Raises `model_not_found`, `resource_constraint`."""
    model = model_of(plane, name)
    if model.state != TESTING:
        after(model.id, model.state, "validate")
    return model


def grace_ended(plane: ControlPlane, now: float) -> list[str]:
    """The deprecated models whose grace period has ended."""
    return [
        m.id
        for m in plane.models.models.values()
        if m.state == DEPRECATED and m.removed_at is not None and m.removed_at <= now
    ]


def decide_end_grace(plane: ControlPlane, model: str, *, now: float, actor: str) -> list[Decision]:
    """Remove a model whose grace period has ended, whoever still has it configured; nothing where it has not, or is done."""
    if model not in grace_ended(plane, now):
        return []
    data = ModelStateChanged(
        model=model, state=REMOVED, previous=DEPRECATED, available=False, reason="its grace period ended", actor=actor
    )
    return [Decision(SYSTEM_TENANT, model_stream(model), data)]


def _by_provider(offerings: Sequence[OfferingSpec]) -> dict[str, OfferingSpec]:
    return {offering.provider: offering for offering in offerings}


def _check_free(plane: ControlPlane, model: str, names: Sequence[str]) -> None:
    """Raise `model_exists` for a name that another model goes by."""
    for name in names:
        owner = plane.models.aliases.get(name) or (name if name in plane.models.models else None)
        if owner is not None and owner != model:
            raise GatewayError(
                "model_exists",
                f"the name {name!r} is taken by model {owner!r}: ids and aliases name one model each",
                details={"field": "model_id" if name == model else "aliases", "model": owner},
            )


def _updated(plane: ControlPlane, model: CatalogModel, facts: Mapping[str, Any], actor: str) -> ModelUpdated | None:
    if not facts:
        return None
    rest = {field: value for field, value in facts.items() if field != "offerings"}
    spec = msgspec.structs.replace(model.spec, **rest)
    offerings: list[OfferingSpec] = list(facts.get("offerings", model.offerings))
    if spec == model.spec and _by_provider(offerings) == _by_provider(model.offerings):
        return None
    problems = Problems()
    check_model(problems, model.id, spec, offerings)
    for field in frozen_changes(model, spec):
        problems.add(
            field,
            f"is {getattr(model.spec, field)!r} and stays so while the model is {model.state}: tenants have vectors of it; "
            "register what differs as a model of its own",
        )
    problems.check(f"model {model.id!r}")
    after(model.id, model.state, "update")
    _check_free(plane, model.id, spec.aliases)
    return ModelUpdated(
        model=model.id, spec=spec, offerings=offerings, origin=OPERATOR, shipped=model.shipped, actor=actor
    )


def _stepped(plane: ControlPlane, model: CatalogModel, step: Step, now: float, actor: str) -> ModelStateChanged | None:
    if _holds(model, step):
        return None
    state = after(model.id, model.state, step.name)
    available, removed_at = model.available, model.removed_at
    match step.name:
        case "available" | "unavailable":
            available = step.name == "available" or state != DEPRECATED
        case "deprecate":
            days = GRACE_DAYS if step.grace_days is None else step.grace_days
            if not 0 <= days <= MAX_GRACE_DAYS:
                problems = Problems()
                problems.add("grace_days", f"{str(days)[:20]} is out of range: expected 0 to {MAX_GRACE_DAYS}")
                problems.check(f"model {model.id!r}")
            available, removed_at = model.state == AVAILABLE, int(now) + days * DAY_SECONDS
        case "remove":
            _check_unused(plane, model, now)
            available = False
    return ModelStateChanged(
        model=model.id,
        state=state,
        previous=model.state,
        available=available,
        reason=step.reason,
        removed_at=removed_at,
        actor=actor,
    )


def _holds(model: CatalogModel, step: Step) -> bool:
    """Whether what is wanted is so already."""
    match step.name:
        case "test":
            return model.state == TESTING
        case "available":
            return model.state == AVAILABLE or (model.state == DEPRECATED and model.available)
        case "unavailable":
            return model.state == "unavailable" or (model.state == DEPRECATED and not model.available)
        case "deprecate":
            return model.state == DEPRECATED and step.grace_days is None
        case "remove":
            return model.state == REMOVED
    return False


def _check_unused(plane: ControlPlane, model: CatalogModel, now: float) -> None:
    """Raise `resource_constraint` where tenants have the model configured, or were promised a longer grace period."""
    tenants = sorted(t for t in plane.tenants.using(model.id) if t not in plane.directory.shredded)
    if tenants:
        raise GatewayError(
            "resource_constraint",
            f"model {model.id!r} is configured by {len(tenants)} tenants: they remove it, or the end of its grace period does",
            details={"field": "state", "state": model.state, "tenants": tenants[:100]},
        )
    if model.removed_at is not None and now < model.removed_at:
        raise GatewayError(
            "resource_constraint",
            f"model {model.id!r} is deprecated with a grace period that has not ended: it is removed when it has",
            details={"field": "state", "state": model.state, "removed_at": model.removed_at},
        )
