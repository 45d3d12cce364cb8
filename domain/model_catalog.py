"""The catalogue's models as their events tell it: facts, offerings and place in the lifecycle."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import msgspec

from domain.catalogue import EMBEDDING, Catalogue, Endpoint, Model, Offering, Price
from domain.events import (
    EventData,
    ModelRegistered,
    ModelSpec,
    ModelStateChanged,
    ModelUpdated,
    ModelValidated,
    OfferingSpec,
)
from domain.model_lifecycle import AVAILABLE, DEPRECATED, DRAFT, REMOVED, TESTING, UNAVAILABLE, deprecated, usable

__all__ = ["CatalogModel", "ModelCatalog", "PriceOf", "as_model", "changed", "deprecated", "frozen_changes", "usable"]

SHOWN = (TESTING, AVAILABLE, UNAVAILABLE, DEPRECATED)
"""The states in which requests know of a model; who may use it is another question (`usable`)."""

PriceOf = Callable[[str, str], Price]
"""The list price of a model at a provider as of now."""


class CatalogModel(msgspec.Struct, frozen=True):
    """A model of the catalogue. `state` is its place in the lifecycle, `available` whether a deprecated one can be had."""

    id: str
    spec: ModelSpec
    offerings: list[OfferingSpec]
    state: str
    origin: str
    shipped: str | None = None
    available: bool = True
    reason: str | None = None
    removed_at: int | None = None
    validated: ModelValidated | None = None

    @property
    def type(self) -> str:
        """What it is for: only `embedding` models are dispatched."""
        return self.spec.type


FROZEN = ("version", "dimensions", "unit", "tokenizer", "type")
"""What stays as it is once tenants may have vectors of a model: its spaces must not change under their names, nor what a token is."""


def frozen_changes(model: CatalogModel, spec: ModelSpec) -> list[str]:
    """The fields of `spec` that may not become what they say; none while the model is a draft or in testing."""
    if model.state in (DRAFT, TESTING):
        return []
    return [field for field in FROZEN if getattr(model.spec, field) != getattr(spec, field)]


class ModelCatalog:
    """Every model by id, the removed ones too. `aliases` are of those that are not removed. `version` grows with every change."""

    def __init__(self) -> None:
        self.version = 0
        self.models: dict[str, CatalogModel] = {}
        self.aliases: dict[str, str] = {}

    def ship(self, models: Iterable[CatalogModel]) -> None:
        """What a release comes with, where the log says nothing of them."""
        for model in models:
            if model.id not in self.models:
                self._put(model)
        self.version += 1

    def apply(self, data: EventData) -> None:
        """Fold one event."""
        match data:
            case ModelRegistered():
                self._put(CatalogModel(data.model, data.spec, data.offerings, data.state, data.origin, data.shipped))
            case ModelUpdated() | ModelStateChanged() | ModelValidated() if data.model in self.models:
                self._put(changed(self.models[data.model], data))
            case _:
                return
        self.version += 1

    def _put(self, model: CatalogModel) -> None:
        self.models[model.id] = model
        self.aliases = {alias: owner for alias, owner in self.aliases.items() if owner != model.id}
        if model.state != REMOVED:
            for alias in model.spec.aliases:
                self.aliases.setdefault(alias, model.id)

    def resolve(self, name: str) -> CatalogModel | None:
        """The model of this id or alias, whatever its state."""
        return self.models.get(name) or self.models.get(self.aliases.get(name, ""))

    def catalogue(self, price_of: PriceOf, endpoints: Iterable[Endpoint]) -> Catalogue:
        """What requests know of it: all but drafts and the removed. A model that embeds nothing is known at once, to be refused as such."""
        shown = [
            m for m in self.models.values() if m.state in SHOWN or (m.spec.type != EMBEDDING and m.state != REMOVED)
        ]
        offerings = [_offering(m.id, o, price_of(m.id, o.provider)) for m in shown for o in m.offerings]
        return Catalogue([as_model(m) for m in shown], offerings, endpoints)


def changed(model: CatalogModel, data: ModelUpdated | ModelStateChanged | ModelValidated) -> CatalogModel:
    """The model after an event of its stream."""
    match data:
        case ModelUpdated():
            return msgspec.structs.replace(
                model, spec=data.spec, offerings=data.offerings, origin=data.origin, shipped=data.shipped
            )
        case ModelStateChanged():
            return msgspec.structs.replace(
                model,
                state=data.state,
                available=data.available,
                reason=data.reason,
                removed_at=data.removed_at,
            )
        case ModelValidated():
            return msgspec.structs.replace(model, validated=data)


def as_model(model: CatalogModel) -> Model:
    """The model as requests see it."""
    spec = model.spec
    return Model(
        id=model.id,
        version=spec.version,
        dimensions=spec.dimensions,
        max_tokens=spec.max_tokens,
        tokenizer=spec.tokenizer,
        unit=spec.unit,
        rank=spec.rank,
        dimensions_allowed=tuple(spec.dimensions_allowed),
        dimensions_range=spec.dimensions_range,
        aliases=tuple(spec.aliases),
        owned_by=spec.owned_by,
        created=spec.created,
        type=spec.type,
        minimum_tier=spec.minimum_tier,
        state=model.state,
        available=model.available,
        removed_at=model.removed_at,
    )


def _offering(model: str, spec: OfferingSpec, price: Price) -> Offering:
    return Offering(
        model=model,
        provider=spec.provider,
        provider_model=spec.provider_model,
        price=price,
        max_inputs=spec.max_inputs,
        max_tokens_per_call=spec.max_tokens_per_call,
        takes_tokens=spec.takes_tokens,
        sends_dimensions=spec.sends_dimensions,
        config=spec.config,
    )
