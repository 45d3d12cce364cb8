"""A price of the book as the API and the commands show it."""

from __future__ import annotations

from datetime import UTC, datetime
from math import inf

import msgspec

from domain.money import usd_per_million
from domain.plane import ControlPlane
from domain.prices import Entry


class PriceEntry(msgspec.Struct, frozen=True):
    """A price of the book. `effective_until` is when it ends by what is in the book now; `effective`: it is what is charged now.

    `unit_pico_usd` null is unknown, 0 is free. `for_tenant` null is the list price.
    """

    id: str
    model: str
    provider: str
    unit: str
    unit_pico_usd: int | None
    usd_per_million: str | None
    effective_from: str
    effective_until: str | None
    effective: bool
    for_tenant: str | None
    source: str | None
    actor: str | msgspec.UnsetType | None = msgspec.UNSET


def price_document(plane: ControlPlane, entry: Entry, now: float, whole: bool) -> PriceEntry:
    """The price as of `now` (seconds since the epoch); `whole`: with who set it."""
    data, ends = entry.set, plane.prices.ending(entry)
    return PriceEntry(
        id=data.price,
        model=data.model,
        provider=data.provider,
        unit=data.unit,
        unit_pico_usd=data.unit_pico_usd,
        usd_per_million=None if data.unit_pico_usd is None else usd_per_million(data.unit_pico_usd),
        effective_from=_text(data.effective_from),
        effective_until=None if ends == inf else _text(ends),
        effective=effective_now(plane, entry, now),
        for_tenant=data.for_tenant,
        source=data.source,
        actor=data.actor if whole else msgspec.UNSET,
    )


def effective_now(plane: ControlPlane, entry: Entry, now: float) -> bool:
    """Whether it is what is charged at the time `now`."""
    model, provider, tenant = entry.key
    book = plane.prices
    holds = book.list_price(model, provider, now) if tenant is None else book.price(model, provider, tenant, now)
    return holds.id == entry.set.price


def _text(at: float) -> str:
    return datetime.fromtimestamp(at, UTC).isoformat().replace("+00:00", "Z")
