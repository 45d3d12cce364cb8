"""The catalogue as requests use it: assembled anew, whole, when the log changed a model, a price or what is deployed."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterable
from pathlib import Path

import structlog

from adapters.providers.registry import EndpointError
from adapters.tokenizers.registry import tokenizer
from domain.catalogue import Candidate, Catalogue, Endpoint, Price
from domain.endpoints import serving
from domain.errors import GatewayError
from domain.model_catalog import CatalogModel, ModelCatalog
from domain.plane import ControlPlane

_log = structlog.get_logger("emberlog.catalogue")


class LiveCatalogue:
    """Give `current` away, never what it answers: the answer is of one moment.

    `configured` are the endpoints of the settings; those that are deployed are in the control plane.
    """

    def __init__(self, plane: ControlPlane, configured: Iterable[Endpoint]) -> None:
        self._plane = plane
        self._configured = tuple(configured)
        self._made_of = (-1, -1, -1)
        self._catalogue: Catalogue

    def current(self) -> Catalogue:
        """The catalogue as of now. Three comparisons where nothing changed."""
        plane = self._plane
        made_of = (plane.models.version, plane.prices.version_at(time.time()), plane.endpoints.version)
        if self._made_of != made_of:
            self._made_of = made_of
            self._catalogue = self.assemble(plane.models)
        return self._catalogue

    def check(self) -> None:
        """Warn of what endpoints are configured for and cannot serve. Raises `EndpointError` for a model that was never registered: a typing error."""
        configured = {endpoint.name for endpoint in self._configured}
        for unserved in self.current().unserved:
            if unserved.endpoint in configured and unserved.model not in self._plane.models.models:
                raise EndpointError(
                    f"endpoint {unserved.endpoint!r}: {unserved.reason}. A model of your own is registered first, by "
                    "`emberlog models register`"
                )
            _log.warning("model_not_served", endpoint=unserved.endpoint, model=unserved.model, reason=unserved.reason)

    def assemble(self, models: ModelCatalog) -> Catalogue:
        """What would serve if these were the models."""
        return models.catalogue(self._price, serving(self._configured, self._plane.endpoints))

    def aside(self, endpoint: Endpoint, model: str) -> Candidate:
        """The endpoint as it would serve a model, though it does not yet. Raises `resource_constraint` where it cannot."""
        catalogue = self._plane.models.catalogue(self._price, [endpoint])
        found = catalogue.candidates(model, endpoint.tenant)
        if not found:
            raise GatewayError("resource_constraint", f"endpoint {endpoint.name!r}: {catalogue.unserved[0].reason}")
        return found[0]

    def _price(self, model: str, provider: str) -> Price:
        return self._plane.prices.list_price(model, provider, time.time())


async def rehearse(live: LiveCatalogue, plane: ControlPlane, model: CatalogModel, store: Path) -> None:
    """Assemble the catalogue with this model in it, aside, and load what it names. Raises `reload_failed`."""
    models = ModelCatalog()
    models.ship([model, *(m for m in plane.models.models.values() if m.id != model.id)])
    try:
        live.assemble(models)
        name = model.spec.tokenizer
        if name is not None and await asyncio.to_thread(tokenizer, name, store) is None:
            raise LookupError(f"the tokenizer {name!r} is not at hand: its package or file is not installed here")
    except Exception as error:
        why = str(error) if isinstance(error, LookupError) else type(error).__name__
        raise GatewayError(
            "reload_failed",
            f"model {model.id!r} cannot be loaded with these settings ({why}): nothing was changed",
            details={"model": model.id, "attempts": []},
        ) from error
