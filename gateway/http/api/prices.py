"""`/api/v1/prices`: the price book. Operators set prices and end them; tenants see list prices and their own."""

from __future__ import annotations

import time
from typing import Any

import msgspec

from domain.errors import GatewayError
from domain.events import PRICES_STREAM
from domain.plane import ControlPlane
from domain.price_decisions import decide_price, decide_price_end, entries_of
from gateway.http.api.route import Answer, ApiRoute, Call, Pagination, Parameter
from gateway.price_document import PriceEntry, effective_now, price_document


class PriceList(msgspec.Struct, frozen=True):
    """Prices in the order in which they were set. `version` is that of the book, for `expected_version`; it is shown to the installation
    only, for it counts every tenant's prices.
    """

    prices: list[PriceEntry]
    pagination: Pagination
    version: int | msgspec.UnsetType = msgspec.UNSET


class NewPrice(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A price to set: its unit price as `unit_pico_usd` (null: unknown) or as `usd_per_million`, a decimal string.

    Times are ISO 8601, to the second. Without `effective_from` it begins now, without `effective_until` it holds until the next one.
    """

    id: str
    model: str
    provider: str
    unit_pico_usd: int | msgspec.UnsetType | None = msgspec.UNSET
    usd_per_million: str | msgspec.UnsetType = msgspec.UNSET
    unit: str = "token"
    effective_from: str | None = None
    effective_until: str | None = None
    for_tenant: str | None = None
    source: str | None = None


class PriceEnd(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """When a price ends, ISO 8601 to the second; null: now."""

    effective_until: str | None = None


async def show_all(call: Call) -> PriceList:
    """The prices within reach that pass the filters."""
    now = time.time()
    query = call.query
    wanted = {name: query.text(name) for name in ("model", "provider", "for_tenant")}
    effective = query.choice("effective", ("true", "false", "any"), "any")
    found = []
    for entry in entries_of(call.plane, call.principal.tenant):
        if any(value is not None and getattr(entry.set, name) != value for name, value in wanted.items()):
            continue
        if effective == "any" or effective_now(call.plane, entry, now) == (effective == "true"):
            found.append(entry)
    shown, pagination = call.page(found)
    return PriceList(
        [price_document(call.plane, e, now, _whole(call)) for e in shown],
        pagination,
        _version(call.plane) if _whole(call) else msgspec.UNSET,
    )


async def show(call: Call) -> PriceEntry:
    """One price."""
    return _entry(call)


async def put(call: Call) -> Answer:
    """Put a price into the book."""
    wanted = {n: v for n, v in msgspec.structs.asdict(call.body).items() if v is not msgspec.UNSET}
    written = await call.decide(
        PRICES_STREAM, lambda plane: decide_price(plane, wanted, now=time.time(), actor=call.actor)
    )
    return Answer(_entry(call, call.body.id), status=201 if written.changed else 200)


async def end(call: Call) -> PriceEntry:
    """End a price."""
    price, until = call.path["price"], call.body.effective_until
    await call.decide(
        PRICES_STREAM, lambda plane: decide_price_end(plane, price, until, now=time.time(), actor=call.actor)
    )
    return _entry(call)


def _entry(call: Call, price: str | None = None) -> PriceEntry:
    name = call.path["price"] if price is None else price
    entry = call.plane.prices.entries.get(name)
    # Whether another tenant has a price of this name is no business of the asker's.
    if entry is None or (
        call.principal.tenant is not None and entry.set.for_tenant not in (None, call.principal.tenant)
    ):
        raise GatewayError("not_found", f"there is no price {name[:128]!r}: see the list of prices")
    return price_document(call.plane, entry, time.time(), _whole(call))


def _whole(call: Call) -> bool:
    return call.principal.tenant is None


def _version(plane: ControlPlane) -> int:
    return plane.versions.get(PRICES_STREAM, 0)


_EFFECTIVE: dict[str, Any] = {"type": "string", "enum": ["true", "false", "any"], "default": "any"}

ROUTES = (
    ApiRoute(
        method="GET",
        path="/api/v1/prices",
        name="listPrices",
        summary="The price book: what units of models cost at providers, from when until when",
        tag="prices",
        handler=show_all,
        answer=PriceList,
        scopes=("billing", "admin"),
        tenanted=False,
        paged=True,
        query=(
            Parameter("model", "Of this model."),
            Parameter("provider", "At this provider."),
            Parameter("for_tenant", "Those of this tenant alone, without list prices."),
            Parameter("effective", "Those that are charged now, those that are not, or any.", _EFFECTIVE),
        ),
    ),
    ApiRoute(
        method="POST",
        path="/api/v1/prices",
        name="setPrice",
        summary="Put a price into the book",
        tag="prices",
        handler=put,
        body=NewPrice,
        answer=PriceEntry,
        tenanted=False,
        statuses=(201, 200),
    ),
    ApiRoute(
        method="GET",
        path="/api/v1/prices/{price:path}",
        name="getPrice",
        summary="One price",
        tag="prices",
        handler=show,
        answer=PriceEntry,
        scopes=("billing", "admin"),
        tenanted=False,
    ),
    ApiRoute(
        method="POST",
        path="/api/v1/prices/{price:path}/end",
        name="endPrice",
        summary="End a price, or keep it from beginning: what it was charged for keeps it",
        tag="prices",
        handler=end,
        body=PriceEnd,
        answer=PriceEntry,
        tenanted=False,
    ),
)
