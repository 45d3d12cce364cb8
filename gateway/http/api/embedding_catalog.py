"""`/api/v1/embedding-models/catalog` and `/providers`: the catalogue again, one provider and one price a model, in the names of other systems."""

from __future__ import annotations

import math
import time
from datetime import UTC, datetime
from typing import Any

import msgspec

from domain.errors import invalid_request
from domain.events import ModelSpec, OfferingSpec
from domain.events.base import PRICES_STREAM
from domain.model_catalog import CatalogModel
from domain.model_decisions import DAY_SECONDS, decide_register, model_of, model_stream
from domain.price_decisions import MAX_UNIT_PICO_USD, decide_price
from domain.problems import Problems
from gateway.catalogue.documents import OfferingDocument, ProviderEntry, provider_entries, shown, visible
from gateway.control import Decide
from gateway.http.api.models import READERS, apply, document, found, step_to
from gateway.http.api.route import Answer, ApiRoute, Call, Nothing, Pagination, Parameter


class CatalogEntry(msgspec.Struct, frozen=True):
    """A model with its first offering (`offerings` has all). `version` is for `expected_version`."""

    id: str
    model_id: str
    provider: str | None
    provider_model: str | None
    model_name: str | None
    model_version: str
    model_type: str
    dimensions: int
    min_dimensions: int | None
    supports_dimensionality_reduction: bool
    supports_binary: bool
    max_tokens: int
    unit_pico_usd: int | None
    price_unit: str | None
    minimum_tier: str
    capabilities: list[str]
    provider_config: dict[str, str]
    is_available: bool
    is_deprecated: bool
    deprecation_date: str | None
    state: str
    offerings: list[OfferingDocument]
    version: int


class CatalogAnswer(msgspec.Struct, frozen=True):
    """A page of the catalogue."""

    models: list[CatalogEntry]
    pagination: Pagination


class CatalogCreation(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A model to register with one offering. `provider_model` is the provider's own id of it (by default `model_id`), `unit_pico_usd` the
    list price of a token, unknown where it is left out.
    """

    provider: str
    model_name: str
    model_id: str
    dimensions: int
    max_tokens: int
    model_version: str = "1"
    model_type: str = "text"
    provider_model: str | None = None
    max_inputs: int = 1
    max_tokens_per_call: int | None = None
    capabilities: list[str] = []
    supports_binary: bool = False
    minimum_tier: str = "free"
    provider_config: dict[str, str] = {}
    unit_pico_usd: int | None = None


class CatalogChange(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What is to change. `deprecation_date` (ISO 8601) goes with `is_deprecated` and is when the model is removed. `provider` says of which
    offering the configuration and the price are, where there are several.
    """

    model_name: str | msgspec.UnsetType = msgspec.UNSET
    max_tokens: int | msgspec.UnsetType = msgspec.UNSET
    capabilities: list[str] | msgspec.UnsetType = msgspec.UNSET
    provider_config: dict[str, str] | msgspec.UnsetType = msgspec.UNSET
    unit_pico_usd: int | msgspec.UnsetType | None = msgspec.UNSET
    is_available: bool | msgspec.UnsetType = msgspec.UNSET
    is_deprecated: bool | msgspec.UnsetType = msgspec.UNSET
    deprecation_date: str | None = None
    provider: str | None = None


class ProvidersAnswer(msgspec.Struct, frozen=True):
    """Every provider that the catalogue or this release knows."""

    providers: list[ProviderEntry]


async def listing(call: Call) -> CatalogAnswer:
    """A page of it."""
    available_only = call.query.choice("available_only", ("true", "false"), "true") == "true"
    models = [
        m
        for m in shown(call.plane, provider=call.query.text("provider"), type=call.query.text("type"))
        if visible(call.plane, m, call.principal) and (not available_only or document(call, m).available)
    ]
    page, pagination = call.page(models)
    return CatalogAnswer([_entry(call, m) for m in page], pagination)


async def show(call: Call) -> CatalogEntry:
    """One model."""
    return _entry(call, found(call))


async def create(call: Call) -> Answer:
    """Register a model, and its price where one is given."""
    body: CatalogCreation = call.body
    spec = ModelSpec(
        version=body.model_version,
        dimensions=body.dimensions,
        max_tokens=body.max_tokens,
        name=body.model_name,
        model_type=body.model_type,
        capabilities=body.capabilities,
        supports_binary=body.supports_binary,
        minimum_tier=body.minimum_tier,
    )
    most = body.max_tokens_per_call
    offering = OfferingSpec(
        provider=body.provider,
        provider_model=body.provider_model or body.model_id,
        max_inputs=body.max_inputs,
        max_tokens_per_call=max(1, body.max_inputs) * max(1, body.max_tokens) if most is None else most,
        config=body.provider_config,
    )
    pico = body.unit_pico_usd
    if pico is not None and not 0 <= pico <= MAX_UNIT_PICO_USD:
        problems = Problems()
        problems.add("unit_pico_usd", f"expected 0 to {MAX_UNIT_PICO_USD} pico-dollars a token")
        problems.check("the price")
    written = await call.decide(
        model_stream(body.model_id),
        lambda plane: decide_register(plane, body.model_id, spec, [offering], actor=call.actor),
    )
    if pico is not None and written.changed:
        pricing = _pricing(call, body.model_id, body.provider, pico)
        call.written = await call.service.control.run(pricing, stream=PRICES_STREAM)
    return Answer(_entry(call, model_of(call.plane, body.model_id)), status=201 if written.changed else 200)


async def change(call: Call) -> CatalogEntry:
    """Change facts, availability, deprecation and price of one."""
    body: CatalogChange = call.body
    model = found(call)
    facts: dict[str, Any] = {
        name: value
        for name, value in (
            ("name", body.model_name),
            ("max_tokens", body.max_tokens),
            ("capabilities", body.capabilities),
        )
        if value is not msgspec.UNSET
    }
    provider = _provider(model, body) if body.provider_config is not msgspec.UNSET else None
    if provider is not None:
        facts["offerings"] = [
            msgspec.structs.replace(o, config=body.provider_config) if o.provider == provider else o
            for o in model.offerings
        ]
    pricing = None
    if body.unit_pico_usd is not msgspec.UNSET:
        pricing = _pricing(call, model.id, _provider(model, body), body.unit_pico_usd)
        pricing(call.plane)  # what is wrong with the price keeps the rest from happening
    steps = []
    if body.is_available is not msgspec.UNSET:
        steps.append(step_to("available" if body.is_available else "unavailable"))
    if body.is_deprecated is True:
        steps.append(step_to("deprecated", None, _grace_days(body.deprecation_date)))
    elif body.deprecation_date is not None:
        raise invalid_request("`deprecation_date` goes with `is_deprecated`: true", "deprecation_date")
    elif body.is_deprecated is False and model.state == "deprecated":
        raise invalid_request("a deprecated model stays so until it is removed", "is_deprecated")
    await apply(call, facts, *steps)
    if pricing is not None:
        call.written = await call.service.control.run(pricing, stream=PRICES_STREAM)
    return _entry(call, found(call))


async def remove(call: Call) -> None:
    """Remove one."""
    await apply(call, {}, step_to("removed"))


async def providers(call: Call) -> ProvidersAnswer:
    """All of them."""
    models = [m for m in shown(call.plane) if visible(call.plane, m, call.principal)]
    tenant = call.principal.tenant
    endpoints = [e for e in call.service.models().endpoints.values() if tenant is None or e.tenant in (None, tenant)]
    return ProvidersAnswer(provider_entries(models, endpoints))


def _pricing(call: Call, model: str, provider: str, pico: int | None) -> Decide:
    """The decision on a list price from now on."""
    now = time.time()
    wanted = {
        "id": f"{model}@{provider}/{time.time_ns() // 1000}",
        "model": model,
        "provider": provider,
        "unit_pico_usd": pico,
    }
    return lambda plane: decide_price(plane, wanted, now=now, actor=call.actor)


def _provider(model: CatalogModel, body: CatalogChange) -> str:
    """The provider that a change of configuration or price is about."""
    known = [o.provider for o in model.offerings]
    if body.provider in known:
        return body.provider
    problems = Problems()
    if body.provider is not None or len(known) != 1:
        problems.add("provider", f"expected one of {', '.join(known) or 'none: the model has no offering'}")
    problems.check(f"model {model.id!r}")
    return known[0]


def _grace_days(date: str | None) -> int | None:
    if date is None:
        return None
    try:
        end = datetime.fromisoformat(date)
    except ValueError:
        raise invalid_request(
            "`deprecation_date`: expected ISO 8601, for example 2027-01-31", "deprecation_date"
        ) from None
    end = end if end.tzinfo else end.replace(tzinfo=UTC)
    return math.ceil((end - datetime.now(UTC)).total_seconds() / DAY_SECONDS)


def _entry(call: Call, model: CatalogModel) -> CatalogEntry:
    whole = document(call, model)
    first = whole.offerings[0] if whole.offerings else None
    sizes = [*whole.dimensions_allowed, *(whole.dimensions_range or [])]
    return CatalogEntry(
        id=whole.id,
        model_id=whole.id,
        provider=first.provider if first else None,
        provider_model=first.provider_model if first else None,
        model_name=whole.name,
        model_version=whole.model_version,
        model_type=whole.model_type,
        dimensions=whole.dimensions,
        min_dimensions=min(sizes) if sizes else None,
        supports_dimensionality_reduction=bool(sizes),
        supports_binary=whole.supports_binary,
        max_tokens=whole.max_tokens,
        unit_pico_usd=first.unit_pico_usd if first else None,
        price_unit=first.unit if first else None,
        minimum_tier=whole.minimum_tier,
        capabilities=whole.capabilities,
        provider_config=first.config if first else {},
        is_available=whole.available,
        is_deprecated=whole.deprecated,
        deprecation_date=whole.removed_at,
        state=whole.state,
        offerings=whole.offerings,
        version=whole.version,
    )


def _route(method: str, path: str, name: str, summary: str, handler: Any, **more: Any) -> ApiRoute:
    return ApiRoute(
        method=method,
        path=f"/api/v1/embedding-models/{path}",
        name=name,
        summary=summary,
        tag="models",
        handler=handler,
        tenanted=False,
        **{"answer": CatalogEntry, **more},
    )


_FILTERS = (
    Parameter("provider", "Models that this provider offers."),
    Parameter("type", "Models of this type or model type."),
    Parameter(
        "available_only", "Leave out what requests cannot have now.", {"enum": ["true", "false"], "default": "true"}
    ),
)

ROUTES = (
    _route(
        "GET", "catalog", "listCatalog", "The catalogue, with the first offering of each model; a tenant's key sees what the tenant may use",
        listing, answer=CatalogAnswer, scopes=READERS, query=_FILTERS, paged=True,
    ),
    _route(
        "POST", "catalog", "createCatalogEntry", "Register a model with one offering and its list price, as a draft",
        create, body=CatalogCreation, statuses=(201, 200),
    ),
    _route("GET", "catalog/{model}", "getCatalogEntry", "One model", show, scopes=READERS),
    _route(
        "PUT", "catalog/{model}", "changeCatalogEntry", "Change facts, availability, deprecation and list price of a model",
        change, body=CatalogChange, errors=(502,),
    ),
    _route(
        "DELETE", "catalog/{model}", "deleteCatalogEntry", "Remove a model that no tenant has configured",
        remove, answer=Nothing, statuses=(204,),
    ),
    _route(
        "GET", "providers", "listProviders", "The providers, what they offer and what can be set there",
        providers, answer=ProvidersAnswer, scopes=READERS,
    ),
)  # fmt: skip
