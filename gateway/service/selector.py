"""Selection in a running gateway: each tenant's menu, kept until something that it rests on changes, and the questions put to it.

Menus rest on the catalogue, the prices, the tenant's configuration and quotas, and measured latencies; each has a version or an identity
to compare, so a change is in force with the next request. What an agent states is read from the directory at every decision.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Protocol

import msgspec

from domain.catalogue import Candidate, Catalogue, Model
from domain.errors import GatewayError, invalid_request
from domain.events import Preferences
from domain.menu import Entry, Menu, compile_menu
from domain.money import Price
from domain.plane import ControlPlane
from domain.selection import Blocked, Explanation, Question, Selection, explain, select
from domain.tenant_config import TenantConfig

KEEP_SECONDS = 300.0
"""Nothing is chosen from a menu older than this, whatever changed without a version."""
MEASURE_SECONDS = 30.0
"""How long measured latencies stand before they are looked at again."""
MAX_MENUS = 1000
"""Menus kept; tenants without anything of their own share one."""


class Live(Protocol):
    """What decides about a model at the moment: never kept, asked at every decision that it bears on."""

    def refusal(self, tenant: str, agent: str, model: str, tokens: int, nano_usd: int | None) -> GatewayError | None:
        """What a request of so many tokens, which may cost so much (None: unknown), would be refused with now; None: nothing."""
        ...

    def over_soft_budget(self, tenant: str) -> bool:
        """Whether a soft budget of the tenant is used up."""
        ...


class Kept(msgspec.Struct, frozen=True, eq=False):
    """A menu and what it rests on. `bound` are the agents of the tenant that a hard quota of money binds, `quotas_version` is when the
    tenant's quotas changed last: what others do with theirs takes nobody's menu away.
    """

    menu: Menu
    bound: frozenset[str]
    catalogue: Catalogue
    config: TenantConfig
    config_version: int
    quotas_version: int
    latencies: Mapping[str, int]
    until: float


class Selector:
    """See the module. `live` None: no quota blocks a model. `latency_ms` gives what was measured of each model. `unavailable` says why none
    of a model's endpoints may be sent to for a tenant now.
    """

    def __init__(
        self,
        plane: ControlPlane,
        catalogue: Callable[[], Catalogue],
        *,
        live: Live | None = None,
        latency_ms: Callable[[], Mapping[str, int]] | None = None,
        unavailable: Callable[[str, Model], GatewayError | None] | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._unavailable = unavailable
        self._plane = plane
        self._catalogue = catalogue
        self._live = live
        self._latency_ms = latency_ms
        self._clock = clock
        self._latencies: Mapping[str, int] = {}
        self._measure_at = 0.0
        self._menus: dict[str, Kept] = {}
        self._shared: Kept | None = None

    def preferences(self, tenant: str, agent: str) -> Preferences | None:
        """What the agent states, or None."""
        return self._plane.directory.preferences(tenant, agent)

    def another(self, tenant: str, model: str | None, failover: str | None) -> bool:
        """Whether another model than the first in line may answer: by the request's `failover`, else the tenant's."""
        mode = self.failover(tenant, failover)
        return mode == "any" or (model is None and mode != "none")

    def failover(self, tenant: str, failover: str | None) -> str:
        """Where a request may move on to: `same_space`, `any` or `none`, as it says itself or else its tenant."""
        return failover or self._plane.tenants.of(tenant).settings.failover

    def choose(
        self, tenant: str, agent: str, question: Question, refused: Mapping[str, GatewayError] | None = None
    ) -> Selection:
        """Decide. With `refused`, the models that have been refused to this very request, every candidate is asked about.

        Raises what `domain.selection.select` raises.
        """
        kept = self.kept(tenant)
        question = self._bound(kept, tenant, agent, question, self._live)
        blocked = None if refused is None else self._blocked(self._live, tenant, agent, question, refused)
        return select(kept.menu, question, self.preferences(tenant, agent), blocked)

    def explain(self, tenant: str, agent: str, question: Question, live: Live | None) -> Explanation:
        """Decide as of now, `live` asked about every candidate, with a reason for every model."""
        kept = self.kept(tenant)
        question = self._bound(kept, tenant, agent, question, live)
        blocked = self._blocked(live, tenant, agent, question, {})
        return explain(kept.menu, question, self.preferences(tenant, agent), blocked)

    def _blocked(
        self, live: Live | None, tenant: str, agent: str, question: Question, refused: Mapping[str, GatewayError]
    ) -> Blocked:
        def blocked(entry: Entry) -> GatewayError | None:
            known = refused.get(entry.id)
            if known is None and self._unavailable is not None:
                known = self._unavailable(tenant, entry.model)
            if known is not None or live is None:
                return known
            cost = entry.charge_nano_usd(question.tokens, question.characters)
            return live.refusal(tenant, agent, entry.id, question.tokens, cost)

        return blocked

    def _bound(self, kept: Kept, tenant: str, agent: str, question: Question, live: Live | None) -> Question:
        """The question with the budgets that bind it."""
        priced, ceiling = agent in kept.bound, self.ceiling(tenant, live)
        return msgspec.structs.replace(question, priced=priced, ceiling=ceiling) if priced or ceiling else question

    def ceiling(self, tenant: str, live: Live | None) -> bool:
        """Whether a soft budget that is used up leaves the tenant only the cheapest adequate model."""
        return (
            live is not None
            and live.over_soft_budget(tenant)
            and self._plane.tenants.of(tenant).settings.price_ceiling == "cheapest"
        )

    def menu(self, tenant: str) -> Menu:
        """What the tenant may choose from now."""
        return self.kept(tenant).menu

    def kept(self, tenant: str) -> Kept:
        """The tenant's menu, made anew where something changed."""
        now = self._clock()
        if now >= self._measure_at:
            self._measure(now)
        kept = self._menus.get(tenant)
        config = self._plane.tenants.of(tenant)
        catalogue = self._catalogue()
        quotas_version = self._plane.quotas.changes.get(tenant, 0)
        if kept is None or kept.quotas_version != quotas_version or not self._current(kept, config, catalogue, now):
            kept = self._make(tenant, config, catalogue, now)
        return kept

    def _current(self, kept: Kept, config: TenantConfig, catalogue: Catalogue, now: float) -> bool:
        return (
            kept.catalogue is catalogue
            and kept.config is config
            and kept.config_version == config.version
            and kept.latencies is self._latencies
            and now < kept.until
        )

    def _measure(self, now: float) -> None:
        self._measure_at = now + MEASURE_SECONDS
        if self._latency_ms is not None and (found := self._latency_ms()) != self._latencies:
            self._latencies = found

    def _make(self, tenant: str, config: TenantConfig, catalogue: Catalogue, now: float) -> Kept:
        plane, prices = self._plane, self._plane.prices
        money = [k for k, q in plane.quotas.of(tenant).items() if k.unit == "nano_usd" and q.hard]
        keys = [(o.model, o.provider, t) for o in catalogue.offerings.values() for t in (tenant, None)]
        plain = (
            config.version == 0
            and not money
            and tenant not in catalogue.owners
            and not any(prices.spans(key) for key in keys if key[2] is not None)
        )
        quotas_version = plane.quotas.changes.get(tenant, 0)
        if plain and self._shared is not None and self._current(self._shared, config, catalogue, now):
            kept = msgspec.structs.replace(self._shared, quotas_version=quotas_version)
            self._keep(tenant, kept)
            return kept

        def price_of(candidate: Candidate) -> Price:
            return prices.price(candidate.offering.model, candidate.offering.provider, tenant, now)

        menu = compile_menu(
            catalogue,
            config,
            tenant=tenant,
            price_of=price_of,
            latency_ms=self._latencies,
            money_bound={
                "*" if key.scope == "tenant" else key.subject for key in money if key.scope in ("tenant", "model")
            },
        )
        changes = (at for key in keys for begin, end, _ in prices.spans(key) for at in (begin, end) if at > now)
        kept = Kept(
            menu=menu,
            bound=frozenset(key.subject for key in money if key.scope not in ("tenant", "model")),
            catalogue=catalogue,
            config=config,
            config_version=config.version,
            quotas_version=quotas_version,
            latencies=self._latencies,
            until=min([now + KEEP_SECONDS, *changes]),
        )
        if plain:
            self._shared = kept
        self._keep(tenant, kept)
        return kept

    def _keep(self, tenant: str, kept: Kept) -> None:
        if len(self._menus) >= MAX_MENUS and tenant not in self._menus:
            self._menus.clear()
        self._menus[tenant] = kept


def pinned_selection(candidate: Candidate, question: Question) -> Selection:
    """The model of one endpoint, whoever may use it. Raises `invalid_request` for a size that it lacks."""
    model = candidate.model
    size = question.dimensions or model.dimensions
    if not model.supports(size):
        raise invalid_request(f"model {model.id!r} has no vectors of {size} dimensions", "dimensions")
    space = model.space(size, question.input_type)
    return Selection(model, size, space, "pinned", candidate=candidate)
