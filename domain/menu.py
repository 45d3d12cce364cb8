"""What a tenant may choose from: its models in every order that a strategy asks for, compiled once per version of what that rests on.

A menu is immutable. It holds configuration alone; quotas, budgets and the health of endpoints are looked at with each request.
"""

from __future__ import annotations

from collections.abc import Callable, Container, Iterable, Mapping
from datetime import UTC, datetime

import msgspec

from domain.catalogue import EMBEDDING, Candidate, Catalogue, Model
from domain.model_lifecycle import AVAILABLE, TESTING, deprecated, usable
from domain.money import Price
from domain.tenant_config import TIERS, TenantConfig

ORDERS = ("cost", "quality", "latency", "any")
"""The orders of a menu: by a strategy, and without one."""
DEFAULT_PRIORITY = 100
CHARACTERS_PER_TOKEN = 4
"""By which prices per token and per character are put into one order; nothing is charged by it."""

_NO_NUMBER = float("inf")


class PassedOver(msgspec.Struct, frozen=True):
    """A model that was considered and not chosen, and why."""

    model: str
    reason: str


class Entry(msgspec.Struct, frozen=True, eq=False):
    """A model that the tenant may use.

    `candidate` is the endpoint that comes first for it, `price` what the tenant pays there. Its vectors can have the `sizes`, and those
    from `low` to `high`. `cost` puts prices per token and per character into one order, the unknown last. `latency_ms` is measured, None
    where nothing was. The `PassedOver`s are made once, for the
    thousands of decisions that name them.
    """

    id: str
    model: Model
    candidate: Candidate
    price: Price
    cost: float
    priority: int
    testing: bool
    fallbacks: tuple[str, ...]
    notices: tuple[str, ...]
    sizes: frozenset[int]
    low: int
    high: int
    max_tokens: int
    latency_ms: int | None
    space: str
    wrong_size: PassedOver
    too_long: PassedOver
    too_slow: PassedOver
    too_dear: PassedOver
    unpriced: PassedOver
    over_ceiling: PassedOver

    def charge_nano_usd(self, tokens: int, characters: int) -> int | None:
        """What so much costs the tenant here, rounded up once; None where the price is unknown."""
        unit = self.price.unit_pico_usd
        if unit is None:
            return None
        return -(-(tokens if self.price.unit == "token" else characters) * unit // 1000)


class Closed(msgspec.Struct, frozen=True):
    """A model of the catalogue that the tenant may not use, or that cannot be had. `code` is what a request that names it is told.

    `gone` says that it is deprecated, `fallbacks` are what the tenant put in its place.
    """

    model: str
    code: str
    reason: str
    gone: bool = False
    fallbacks: tuple[str, ...] = ()


class Menu(msgspec.Struct, frozen=True, eq=False):
    """What a tenant may choose from. `names` and `closed` are by id and alias; `orders` are by `ORDERS`, the deprecated last."""

    names: dict[str, Entry]
    closed: dict[str, Closed]
    orders: dict[str, tuple[Entry, ...]]
    default: str | None

    def closed_models(self) -> Iterable[Closed]:
        """Every model that is closed, once."""
        return {c.model: c for c in self.closed.values()}.values()


def list_price(candidate: Candidate) -> Price:
    """What everybody pays who has no price of its own."""
    return candidate.offering.price


def compile_menu(
    catalogue: Catalogue,
    config: TenantConfig,
    *,
    tenant: str | None = None,
    price_of: Callable[[Candidate], Price] = list_price,
    latency_ms: Mapping[str, int] | None = None,
    money_bound: Container[str] = (),
) -> Menu:
    """The menu of a tenant of this configuration: of what everybody is served, and what `tenant` has endpoints of its own for.

    `price_of` is what it pays at an endpoint; `latency_ms` what was measured, by model; `money_bound` the models (`*` for all) that a hard
    quota of money is on: what has no known price cannot be held to one.
    """
    latency_ms = latency_ms or {}
    names: dict[str, Entry] = {}
    closed: dict[str, Closed] = {}
    entries: list[Entry] = []
    bound_all = config.settings.require_known_prices or "*" in money_bound
    for model in catalogue.models.values():
        found = _place(
            catalogue, config, tenant, model, price_of, latency_ms.get(model.id), bound_all or model.id in money_bound
        )
        if isinstance(found, Closed):
            closed.update(dict.fromkeys((model.id, *model.aliases), found))
            continue
        names.update(dict.fromkeys((model.id, *model.aliases), found))
        if not found.testing:
            entries.append(found)
    orders = {order: tuple(sorted(entries, key=_keys[order])) for order in ORDERS}
    return Menu(names, closed, orders, config.default)


def _place(
    catalogue: Catalogue,
    config: TenantConfig,
    tenant: str | None,
    model: Model,
    price_of: Callable[[Candidate], Price],
    latency_ms: int | None,
    priced: bool,
) -> Entry | Closed:
    """Where a model of the catalogue stands for the tenant."""
    configured = config.models.get(model.id)
    fallbacks = tuple(configured.fallback_models) if configured else ()

    def close(code: str, reason: str) -> Closed:
        return Closed(model.id, code, reason, deprecated(model), fallbacks)

    if model.type != EMBEDDING:
        return close("type_unsupported", f"it is of the type {model.type}, and only {EMBEDDING} models are dispatched")
    if config.models and configured is None:
        return close("model_not_enabled", "the tenant has not configured it")
    if configured is not None and configured.state != "enabled":
        return close("model_not_enabled", f"it is {configured.state} for the tenant, not enabled")
    if TIERS.index(model.minimum_tier) > TIERS.index(config.settings.tier):
        return close(
            "model_not_enabled", f"it needs the tier {model.minimum_tier}, and the tenant's is {config.settings.tier}"
        )
    if not usable(model, admin=True):
        return close("no_model_available", "it is unavailable at present")
    candidates = catalogue.candidates(model.id, tenant)
    if not candidates:
        return close("no_model_available", "no configured endpoint serves it")
    price = price_of(candidates[0])
    if priced and price.unit_pico_usd is None:
        why = "the tenant requires known prices" if config.settings.require_known_prices else "a hard budget needs one"
        return close("no_model_available", f"its price is unknown, and {why}")
    return _entry(
        model, candidates[0], price, configured.priority if configured else DEFAULT_PRIORITY, fallbacks, latency_ms
    )


def _entry(
    model: Model, candidate: Candidate, price: Price, priority: int, fallbacks: tuple[str, ...], latency_ms: int | None
) -> Entry:
    low, high = model.dimensions_range or (1, 0)

    def over(reason: str) -> PassedOver:
        return PassedOver(model.id, reason)

    return Entry(
        id=model.id,
        model=model,
        candidate=candidate,
        price=price,
        cost=_cost(price),
        priority=priority,
        testing=model.state == TESTING,
        fallbacks=fallbacks,
        notices=(_deprecation(model),) if deprecated(model) else (),
        sizes=frozenset((model.dimensions, *model.dimensions_allowed)),
        low=low,
        high=high,
        max_tokens=model.max_tokens,
        latency_ms=latency_ms,
        space=model.space(model.dimensions, None),
        wrong_size=over(f"has no vectors of the size asked for: it has {model.dimensions_text()}"),
        too_long=over(f"takes at most {model.max_tokens} tokens a text"),
        too_slow=over(f"took {latency_ms} ms of late, longer than the agent allows"),
        too_dear=over("would cost more than the agent allows for a request"),
        unpriced=over("its price is unknown, and the request is bound to a budget or a limit of cost"),
        over_ceiling=over("a soft budget is used up: only the cheapest adequate model is chosen"),
    )


def _deprecation(model: Model) -> str:
    end = ""
    if model.removed_at is not None:
        end = f" and goes on {datetime.fromtimestamp(model.removed_at, UTC).date().isoformat()}"
    return f"model {model.id!r} is deprecated{end}: move to another"


def _cost(price: Price) -> float:
    unit = price.unit_pico_usd
    if unit is None:
        return _NO_NUMBER
    return float(unit if price.unit == "token" else unit * CHARACTERS_PER_TOKEN)


def _latency(entry: Entry) -> float:
    return _NO_NUMBER if entry.latency_ms is None else float(entry.latency_ms)


_Key = Callable[[Entry], tuple[bool, float, int, float, str]]


def _key(by: Callable[[Entry], float]) -> _Key:
    """The deprecated last; by the strategy; by priority, higher first; by cost; by id."""
    return lambda e: (e.model.state != AVAILABLE, by(e), -e.priority, e.cost, e.id)


_keys: dict[str, _Key] = {
    "cost": _key(lambda e: e.cost),
    "quality": _key(lambda e: e.model.rank),
    "latency": _key(_latency),
    "any": _key(lambda _: 0.0),
}
