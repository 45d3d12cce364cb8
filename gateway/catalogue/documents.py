"""A model of the catalogue as the management API and the commands show it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable

import msgspec

from domain.catalogue import Endpoint
from domain.events import ModelValidated, OfferingSpec
from domain.model_catalog import CatalogModel, deprecated, usable
from domain.model_config import PROVIDERS
from domain.model_decisions import model_stream
from domain.model_lifecycle import REMOVED
from domain.plane import ControlPlane
from domain.tenancy import Principal
from domain.tenant_config import TIERS
from gateway.event_document import time_text


class OfferingDocument(msgspec.Struct, frozen=True):
    """The model at a provider. The price is what the asker pays there by now, per `unit`; null: it is unknown, 0: it is free."""

    provider: str
    provider_model: str
    max_inputs: int
    max_tokens_per_call: int
    takes_tokens: bool
    sends_dimensions: bool
    config: dict[str, str]
    unit: str
    unit_pico_usd: int | None
    price: str


class ValidationDocument(msgspec.Struct, frozen=True):
    """What the last validation found. Norms are in millionths."""

    passed: bool
    at: str
    endpoint: str
    space: str | None
    dimensions: int | None
    norm_min: int | None
    norm_max: int | None
    latency_ms: int | None
    problems: list[str]


class ModelDocument(msgspec.Struct, frozen=True):
    """A model. `version` is that of its stream, for `expected_version`; `model_version` is the model's own, a part of its spaces' names.

    `available`: whether requests can have it now, as far as its place in the lifecycle goes. `removed_at` is when the grace period of a
    deprecated one ends. `endpoints` are those that serve it to the asker, of the settings and deployed.
    """

    id: str
    name: str | None
    model_version: str
    state: str
    available: bool
    deprecated: bool
    reason: str | None
    removed_at: str | None
    type: str
    model_type: str
    dimensions: int
    dimensions_allowed: list[int]
    dimensions_range: list[int] | None
    max_tokens: int
    unit: bool
    tokenizer: str | None
    rank: int
    aliases: list[str]
    capabilities: list[str]
    supports_binary: bool
    minimum_tier: str
    owned_by: str
    created: str | None
    origin: str
    offerings: list[OfferingDocument]
    endpoints: list[str]
    validation: ValidationDocument | None
    version: int


class ModelStatistics(msgspec.Struct, frozen=True):
    """How many models there are: in all but the removed, by state, by type, by provider that offers them, and served by endpoints."""

    total_models: int
    by_state: dict[str, int]
    by_type: dict[str, int]
    by_provider: dict[str, int]
    served: int


def visible(plane: ControlPlane, model: CatalogModel, principal: Principal) -> bool:
    """Whether the asker is shown the model: operators see all, a tenant's admins what its tier lets it have, others what it has enabled."""
    if principal.tenant is None:
        return True
    config, admin = plane.tenants.of(principal.tenant), "admin" in principal.scopes
    if config.models and not admin:
        configured = config.models.get(model.id)
        if configured is None or configured.state != "enabled":
            return False
    return usable(model, admin) and TIERS.index(model.spec.minimum_tier) <= TIERS.index(config.settings.tier)


def model_document(
    plane: ControlPlane, model: CatalogModel, endpoints: Iterable[str], *, now: float, tenant: str | None = None
) -> ModelDocument:
    """The model as `tenant` (None: the installation) is shown it; `now` in seconds since the epoch."""
    spec = model.spec
    return ModelDocument(
        id=model.id,
        name=spec.name,
        model_version=spec.version,
        state=model.state,
        available=usable(model, admin=False),
        deprecated=deprecated(model),
        reason=model.reason,
        removed_at=_time(model.removed_at),
        type=spec.type,
        model_type=spec.model_type,
        dimensions=spec.dimensions,
        dimensions_allowed=spec.dimensions_allowed,
        dimensions_range=None if spec.dimensions_range is None else list(spec.dimensions_range),
        max_tokens=spec.max_tokens,
        unit=spec.unit,
        tokenizer=spec.tokenizer,
        rank=spec.rank,
        aliases=spec.aliases,
        capabilities=spec.capabilities,
        supports_binary=spec.supports_binary,
        minimum_tier=spec.minimum_tier,
        owned_by=spec.owned_by,
        created=_time(spec.created or None),
        origin=model.origin,
        offerings=[_offering(plane, model.id, o, now, tenant) for o in model.offerings],
        endpoints=sorted(endpoints),
        validation=None if model.validated is None else _validation(model.validated),
        version=plane.versions.get(model_stream(model.id), 0),
    )


def shown(
    plane: ControlPlane,
    *,
    provider: str | None = None,
    type: str | None = None,  # noqa: A002 (the parameter's own name)
    state: str | None = None,
    tag: str | None = None,
    search: str | None = None,
) -> list[CatalogModel]:
    """The models that match, by id. The removed ones only where their state is asked for."""
    wanted = None if search is None else search.casefold()
    return [
        model
        for _, model in sorted(plane.models.models.items())
        if (model.state == state if state is not None else model.state != REMOVED)
        and (provider is None or any(o.provider == provider for o in model.offerings))
        and (type is None or type in (model.spec.type, model.spec.model_type))
        and (tag is None or tag in model.spec.capabilities)
        and (wanted is None or any(wanted in text.casefold() for text in _texts(model)))
    ]


def count_models(models: Collection[CatalogModel], served: Collection[str]) -> ModelStatistics:
    """Counts of these models, of which `served` are the ids of those that endpoints serve."""
    kept = [m for m in models if m.state != REMOVED]
    return ModelStatistics(
        total_models=len(kept),
        by_state=dict(Counter(m.state for m in models)),
        by_type=dict(Counter(m.spec.type for m in kept)),
        by_provider=dict(Counter(o.provider for m in kept for o in m.offerings)),
        served=sum(m.id in served for m in kept),
    )


class ProviderEntry(msgspec.Struct, frozen=True):
    """A provider: the models that it offers, the endpoints that are there, and the settings that an offering may have."""

    name: str
    models: list[str]
    endpoints: list[str]
    config: dict[str, list[str]]


def provider_entries(models: Iterable[CatalogModel], endpoints: Iterable[Endpoint]) -> list[ProviderEntry]:
    """Every provider that this release knows or that offers one of these models, by name."""
    offered: dict[str, list[str]] = {name: [] for name in PROVIDERS}
    for model in models:
        for offering in model.offerings:
            offered.setdefault(offering.provider, []).append(model.id)
    placed = sorted((e.name, e.provider) for e in endpoints)
    return [
        ProviderEntry(
            name,
            ids,
            [endpoint for endpoint, provider in placed if provider == name],
            {k: list(v) for k, v in PROVIDERS[name].config.items()} if name in PROVIDERS else {},
        )
        for name, ids in sorted(offered.items())
    ]


def _texts(model: CatalogModel) -> list[str]:
    return [model.id, model.spec.name or "", model.spec.owned_by, *model.spec.aliases]


def _offering(
    plane: ControlPlane, model: str, offering: OfferingSpec, now: float, tenant: str | None
) -> OfferingDocument:
    prices = plane.prices
    price = (
        prices.list_price(model, offering.provider, now)
        if tenant is None
        else prices.price(model, offering.provider, tenant, now)
    )
    return OfferingDocument(
        provider=offering.provider,
        provider_model=offering.provider_model,
        max_inputs=offering.max_inputs,
        max_tokens_per_call=offering.max_tokens_per_call,
        takes_tokens=offering.takes_tokens,
        sends_dimensions=offering.sends_dimensions,
        config=offering.config,
        unit=price.unit,
        unit_pico_usd=price.unit_pico_usd,
        price=price.id,
    )


def _validation(data: ModelValidated) -> ValidationDocument:
    return ValidationDocument(
        passed=data.passed,
        at=time_text(data.at),
        endpoint=data.endpoint,
        space=data.space,
        dimensions=data.dimensions,
        norm_min=data.norm_min,
        norm_max=data.norm_max,
        latency_ms=data.latency_ms,
        problems=data.problems,
    )


def _time(seconds: int | None) -> str | None:
    return None if seconds is None else time_text(seconds * 1_000_000)
