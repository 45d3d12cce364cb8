"""Setting prices, and ending them: what an operator wants as events of the price book, or why it cannot be."""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import UTC, datetime
from math import inf
from typing import TYPE_CHECKING, Any

import msgspec

from domain.decision import Decision
from domain.errors import GatewayError
from domain.events import SYSTEM_TENANT, PriceSet
from domain.events.base import PRICES_STREAM
from domain.money import pico_per_unit
from domain.prices import UNITS, Entry, PriceBook
from domain.problems import Problems

if TYPE_CHECKING:
    from domain.plane import ControlPlane

MAX_UNIT_PICO_USD = 1_000_000_000
"""USD 1,000 a million: no bill comes near the end of 64 bits by it, and who gives more has mistaken the unit."""
PAST_SECONDS = 60
"""How far back a price may begin or end, for clocks that differ. Further back the book would contradict the bills already written."""
_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:@/+-]{0,127}")
_LAST_YEAR = 9000
_SOURCE_CHARACTERS = 500


def decide_price(plane: ControlPlane, wanted: Mapping[str, Any], *, now: float, actor: str) -> list[Decision]:
    """Put a price into the book.

    `wanted` has `id`, `model`, `provider`, one of `unit_pico_usd` (None: unknown) and `usd_per_million` (a decimal string), and may have
    `unit`, `for_tenant`, `effective_from` (default `now`), `effective_until` (ISO 8601) and `source`. Nothing is to do where the book has
    this price already. Raises `invalid_config`, `model_not_found`, `not_found`, `version_conflict` for an id that says something else.
    """
    problems = Problems()
    pico = _unit_price(wanted, problems)
    begin = _time(wanted, "effective_from", problems)
    end = _time(wanted, "effective_until", problems)
    name, source = wanted.get("id", ""), wanted.get("source")
    if not _ID.fullmatch(name):
        problems.add(
            "id", f"{name[:40]!r}: expected 1 to 128 of A-Z, a-z, 0-9 and . _ : @ / + -, a letter or digit first"
        )
    if (unit := wanted.get("unit", "token")) not in UNITS:
        problems.add("unit", f"{unit[:40]!r} is none of {', '.join(UNITS)}")
    if source is not None and len(source) > _SOURCE_CHARACTERS:
        problems.add("source", f"has {len(source)} characters; expected at most {_SOURCE_CHARACTERS}")
    problems.check("the price")
    _check_known(plane, wanted)
    known = plane.prices.entries.get(name)
    if begin is None:
        begin = known.set.effective_from if known else _free_second(plane.prices, wanted, int(now))
    data = PriceSet(
        price=name,
        model=wanted["model"],
        provider=wanted["provider"],
        effective_from=begin,
        unit=unit,
        unit_pico_usd=pico,
        effective_until=end,
        for_tenant=wanted.get("for_tenant"),
        source=source,
        actor=actor,
    )
    if known is not None:
        if msgspec.structs.replace(known.set, actor=actor) == data:
            return []
        raise GatewayError(
            "version_conflict",
            f"the price {name!r} is in the book and says something else: bills name it, so it stays as it is; take another id",
            details={"field": "id"},
        )
    _check_span(plane.prices, data, now)
    return [Decision(SYSTEM_TENANT, PRICES_STREAM, data)]


def decide_price_end(
    plane: ControlPlane, price: str, effective_until: str | None, *, now: float, actor: str
) -> list[Decision]:
    """End a price at a time (ISO 8601; None: now), or keep it from ever beginning. Nothing is to do where it has ended by then.

    Raises `not_found`, `invalid_config`.
    """
    entry = plane.prices.entries.get(price)
    if entry is None:
        raise GatewayError("not_found", f"there is no price {price[:128]!r}: see the list of prices")
    problems = Problems()
    at = _time({"effective_until": effective_until}, "effective_until", problems)
    problems.check("the end of the price")
    if at is not None and at < now - PAST_SECONDS:
        problems.add("effective_until", "is in the past: what was charged by the price stays charged")
    ends = plane.prices.ending(entry)
    if at is not None and at > ends:
        problems.add("effective_until", f"it ends at {_text(ends)} already: set another price to go on")
    problems.check("the end of the price")
    begin = entry.set.effective_from
    until = max(begin, int(now) if at is None else at)
    if until >= ends:
        return []
    return [
        Decision(SYSTEM_TENANT, PRICES_STREAM, msgspec.structs.replace(entry.set, effective_until=until, actor=actor))
    ]


def _unit_price(wanted: Mapping[str, Any], problems: Problems) -> int | None:
    if ("unit_pico_usd" in wanted) == ("usd_per_million" in wanted):
        problems.add(
            "unit_pico_usd", "say what a unit costs, by one of `unit_pico_usd` (null: unknown) and `usd_per_million`"
        )
        return None
    field = "unit_pico_usd"
    pico: int | None = wanted.get(field)
    if "usd_per_million" in wanted:
        field = "usd_per_million"
        try:
            pico = pico_per_unit(wanted[field])
        except ValueError as error:
            problems.add(field, str(error))
    if pico is not None and not 0 <= pico <= MAX_UNIT_PICO_USD:
        problems.add(field, f"expected 0 to {MAX_UNIT_PICO_USD} pico-dollars a unit, USD 1,000 a million")
    return pico


def _time(wanted: Mapping[str, Any], field: str, problems: Problems) -> int | None:
    """Seconds since the epoch of ISO 8601, UTC where no offset is given."""
    text = wanted.get(field)
    if text is None:
        return None
    try:
        time = datetime.fromisoformat(text)
        time = time.astimezone(UTC) if time.tzinfo else time.replace(tzinfo=UTC)
    except (ValueError, OverflowError):
        time = None
    if time is None or not 1970 <= time.year <= _LAST_YEAR or time.microsecond:
        problems.add(field, "expected ISO 8601 to the second, for example 2027-01-01 or 2027-01-01T12:00:00Z")
        return None
    return int(time.timestamp())


def _check_known(plane: ControlPlane, wanted: Mapping[str, Any]) -> None:
    model = plane.models.models.get(wanted["model"])
    if model is None or model.state == "removed":
        raise GatewayError(
            "model_not_found",
            f"there is no model {wanted['model'][:64]!r} in the catalogue: register it before its price",
            details={"field": "model"},
        )
    offered = [offering.provider for offering in model.offerings]
    if wanted["provider"] not in offered:
        problems = Problems()
        problems.add(
            "provider",
            f"{wanted['provider'][:40]!r} does not offer {model.id}; who does: {', '.join(offered) or 'nobody'}",
        )
        problems.check("the price")
    tenant = wanted.get("for_tenant")
    if tenant is not None and (tenant not in plane.directory.tenants or tenant in plane.directory.shredded):
        raise GatewayError("not_found", f"there is no tenant {tenant[:63]!r}", details={"field": "for_tenant"})


def _free_second(book: PriceBook, wanted: Mapping[str, Any], now: int) -> int:
    """The first second from now on at which no other price of the same begins."""
    taken = {begin for begin, _, _ in book.spans((wanted["model"], wanted["provider"], wanted.get("for_tenant")))}
    while now in taken:
        now += 1
    return now


def _check_span(book: PriceBook, data: PriceSet, now: float) -> None:
    problems = Problems()
    begin, end = data.effective_from, data.effective_until
    if begin < now - PAST_SECONDS:
        problems.add("effective_from", "is in the past, where bills were written without it: leave it out to begin now")
    if end is not None and end <= begin:
        problems.add("effective_until", "must be later than `effective_from`")
    for other_begin, other_end, other in book.spans((data.model, data.provider, data.for_tenant)):
        if other_begin == begin:
            problems.add("effective_from", f"the price {other.set.price!r} begins at that time")
        elif end is not None and not other.base and begin < other_end and other_begin < end:
            problems.add(
                "effective_from" if other_begin < begin else "effective_until",
                f"the price {other.set.price!r} holds from {_text(other_begin)} until {_text(other_end)}, and one with an end overlaps no other",
            )
    problems.check("the price")


def _text(at: float) -> str:
    return "never" if at == inf else datetime.fromtimestamp(at, UTC).isoformat().replace("+00:00", "Z")


def entries_of(plane: ControlPlane, tenant: str | None) -> list[Entry]:
    """What a tenant may see of the book: list prices and its own; None sees all. In the order in which they were set."""
    return [e for e in plane.prices if tenant is None or e.set.for_tenant in (None, tenant)]
