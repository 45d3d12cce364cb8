"""The catalogue's models as their events tell it: facts, offerings and place in the lifecycle."""

from __future__ import annotations

import msgspec

from domain.events import (
    EventData,
    ModelRegistered,
    ModelSpec,
    ModelStateChanged,
    ModelUpdated,
    ModelValidated,
    OfferingSpec,
)


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


class ModelCatalog:
    """Every model by id, the removed ones too. `version` grows with every change."""

    def __init__(self) -> None:
        self.version = 0
        self.models: dict[str, CatalogModel] = {}

    def apply(self, data: EventData) -> None:
        """Fold one event."""
        match data:
            case ModelRegistered():
                self.models[data.model] = CatalogModel(
                    data.model, data.spec, data.offerings, data.state, data.origin, data.shipped
                )
            case ModelUpdated() | ModelStateChanged() | ModelValidated() if data.model in self.models:
                self.models[data.model] = _changed(self.models[data.model], data)
            case _:
                return
        self.version += 1


def _changed(model: CatalogModel, data: ModelUpdated | ModelStateChanged | ModelValidated) -> CatalogModel:
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
