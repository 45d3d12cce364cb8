"""The catalogue as requests see it: models (provider-neutral), offerings (model × provider: price, caps) and endpoints (configured places).

What stands in it is told by the log (`domain/model_catalog.py`); this is what is assembled from that, for the hot path.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from hashlib import blake2b

import msgspec

from domain.model_lifecycle import usable
from domain.money import Price
from domain.space import space_name

__all__ = ["Candidate", "Catalogue", "Endpoint", "Model", "Offering", "Price", "Unserved"]

EMBEDDING = "embedding"
"""The type of the models that can be dispatched."""


class Model(msgspec.Struct, frozen=True):
    """A model. `dimensions` is its default size; `dimensions_allowed` lists others, or gives (min, max) in `dimensions_range`.

    `max_tokens` bounds one input. `rank` orders by quality, 1 best. `unit` says whether vectors have length 1. `state` is its place in
    the lifecycle and `available` whether a deprecated one can be had; `removed_at` (seconds since the epoch) is when such a one goes.
    `type` other than `embedding` is never dispatched. `minimum_tier` is the lowest tier of a tenant that may use it.
    """

    id: str
    version: str
    dimensions: int
    max_tokens: int
    tokenizer: str | None
    unit: bool
    rank: int
    dimensions_allowed: tuple[int, ...] = ()
    dimensions_range: tuple[int, int] | None = None
    aliases: tuple[str, ...] = ()
    owned_by: str = ""
    created: int = 0
    type: str = "embedding"
    minimum_tier: str = "free"
    state: str = "available"
    available: bool = True
    removed_at: int | None = None

    def supports(self, dimensions: int) -> bool:
        """Whether vectors of this size can be had from the model."""
        if dimensions == self.dimensions or dimensions in self.dimensions_allowed:
            return True
        span = self.dimensions_range
        return span is not None and span[0] <= dimensions <= span[1]

    def dimensions_text(self) -> str:
        """The supported sizes in words, for error messages."""
        if self.dimensions_range is not None:
            return f"{self.dimensions_range[0]} to {self.dimensions_range[1]}"
        return ", ".join(str(d) for d in sorted({self.dimensions, *self.dimensions_allowed}))

    def space(self, dimensions: int, input_type: str | None) -> str:
        """The name of the space of this model's vectors of that size and input type."""
        return space_name(self.id, self.version, dimensions, self.unit, input_type)


class Offering(msgspec.Struct, frozen=True):
    """A model at a provider: its id there, list price and caps. `takes_tokens`: accepts token arrays of the model's tokeniser.

    `sends_dimensions`: another size than the default is asked of the provider; else vectors are cut here. `config` are settings of
    the provider's own.
    """

    model: str
    provider: str
    provider_model: str
    price: Price
    max_inputs: int
    max_tokens_per_call: int
    takes_tokens: bool = False
    sends_dimensions: bool = False
    config: Mapping[str, str] = {}


class Endpoint(msgspec.Struct, frozen=True):
    """A configured place that serves offerings. `models` maps catalogue ids to the provider's own ids. Times in seconds.

    With a `tenant` it serves that one alone, with a `credential` of the tenant's (the name it is kept under). `weight` 0 stands by: it
    is used where no other can be. `options` are the provider's own: `region`, `project`, `api_version`, ...
    """

    name: str
    provider: str
    models: dict[str, str]
    base_url: str | None = None
    api_key_env: str | None = None
    max_inputs: int | None = None
    max_tokens_per_call: int | None = None
    max_concurrency: int = 8
    timeout: float = 30.0
    weight: int = 1
    options: dict[str, str] = {}
    tenant: str | None = None
    credential: str | None = None

    @property
    def configuration(self) -> str:
        """A digest (32 hex digits) of what decides about its vectors and whose they are: another place or key is another endpoint."""
        told = (self.provider, sorted(self.models.items()), self.base_url, sorted(self.options.items()), self.tenant)
        return blake2b(repr(told).encode(), digest_size=16).hexdigest()


class Candidate(msgspec.Struct, frozen=True):
    """An endpoint that serves a model, with the offering that will be billed and the caps that bind there."""

    endpoint: Endpoint
    model: Model
    offering: Offering
    provider_model: str
    max_inputs: int
    max_tokens_per_call: int


class Unserved(msgspec.Struct, frozen=True):
    """What an endpoint is configured to serve and cannot: the model, and why."""

    endpoint: str
    model: str
    reason: str


class Catalogue:
    """Models and offerings, with what the configured endpoints serve of them. Immutable; replaced whole on change.

    An endpoint may be configured for what the catalogue lacks, before it is registered or after it was removed: `unserved` lists that.
    """

    def __init__(self, models: Iterable[Model], offerings: Iterable[Offering], endpoints: Iterable[Endpoint]) -> None:
        self.models = {m.id: m for m in models}
        self.aliases: dict[str, str] = {}
        for model in self.models.values():
            for alias in model.aliases:
                self.aliases.setdefault(alias, model.id)
        self.offerings = {(o.model, o.provider): o for o in offerings}
        self.endpoints = {e.name: e for e in endpoints}
        self.unserved: list[Unserved] = []
        self._candidates: dict[str, list[Candidate]] = {}
        self._owned: dict[str, list[Candidate]] = {}
        for endpoint in self.endpoints.values():
            for model_id, provider_model in endpoint.models.items():
                candidate = self._candidate(endpoint, model_id, provider_model)
                if candidate is not None:
                    of = self._candidates if endpoint.tenant is None else self._owned
                    of.setdefault(model_id, []).append(candidate)
        for found in (*self._candidates.values(), *self._owned.values()):
            found.sort(key=lambda c: (-c.endpoint.weight, _unit_price(c), c.endpoint.name))
        self._of_tenant: dict[tuple[str, str], list[Candidate]] = {}
        for model_id, owned in self._owned.items():
            for candidate in owned:
                self._of_tenant.setdefault((model_id, candidate.endpoint.tenant or ""), []).append(candidate)
        for (model_id, _), theirs in self._of_tenant.items():
            theirs += self._candidates.get(model_id, ())
        self.owners = {tenant for _, tenant in self._of_tenant}
        """The tenants that have endpoints of their own."""
        self._served = [m for m in map(self.models.__getitem__, sorted(self._candidates)) if usable(m, admin=False)]

    def _candidate(self, endpoint: Endpoint, model_id: str, provider_model: str) -> Candidate | None:
        model = self.models.get(model_id)
        offering = self.offerings.get((model_id, endpoint.provider))
        if model is None or offering is None:
            offered = sorted(m for m, p in self.offerings if p == endpoint.provider)
            reason = (
                f"the catalogue has no model {model_id!r} at provider {endpoint.provider!r}; "
                f"it offers there: {', '.join(offered) or 'nothing'}"
            )
            self.unserved.append(Unserved(endpoint.name, model_id, reason))
            return None
        if model.type != EMBEDDING:
            reason = f"model {model_id!r} is of the type {model.type!r}, and only {EMBEDDING!r} models are dispatched"
            self.unserved.append(Unserved(endpoint.name, model_id, reason))
            return None
        return Candidate(
            endpoint=endpoint,
            model=model,
            offering=offering,
            provider_model=provider_model or offering.provider_model,
            max_inputs=min(offering.max_inputs, endpoint.max_inputs or offering.max_inputs),
            max_tokens_per_call=min(
                offering.max_tokens_per_call, endpoint.max_tokens_per_call or offering.max_tokens_per_call
            ),
        )

    def resolve(self, name: str) -> Model | None:
        """The model of this id or alias."""
        return self.models.get(name) or self.models.get(self.aliases.get(name, ""))

    def candidates(self, model_id: str, tenant: str | None = None) -> list[Candidate]:
        """The endpoints that serve a model, best first: the tenant's own, then heavier weight, cheaper, then by name. Empty when there is none.

        Those of other tenants are never among them.
        """
        if tenant is not None and (found := self._of_tenant.get((model_id, tenant))) is not None:
            return found
        return self._candidates.get(model_id, [])

    def all_candidates(self, model_id: str) -> list[Candidate]:
        """The endpoints that serve a model, those of tenants included."""
        return self._candidates.get(model_id, []) + self._owned.get(model_id, [])

    def served(self) -> list[Model]:
        """The models that everybody may use and some configured endpoint serves, by id."""
        return self._served.copy()


def _unit_price(candidate: Candidate) -> float:
    price = candidate.offering.price.unit_pico_usd
    return float("inf") if price is None else float(price)
