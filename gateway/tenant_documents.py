"""Models, agents and settings of a tenant as the management API and the commands show them."""

from __future__ import annotations

from typing import Literal

import msgspec

from domain.agents import agent_stream
from domain.events import AgentRegistered, Preferences, TenantModelConfigured
from domain.menu import Menu
from domain.model_lifecycle import deprecated
from domain.plane import ControlPlane
from domain.tenant_models import LIMITS, PRICES, limit_of


class TenantModel(msgspec.Struct, frozen=True):
    """A model of a tenant. `state` is `configured`, `enabled`, `disabled`, or `quota_exceeded` while a hard quota of it is used up.

    `usable` says whether requests can have it now, `reason` why not. `over_price_ceiling`: a soft budget is used up and another of the
    tenant's models is cheaper, so that this one is chosen only where no other may answer or suits. Limits are hard quotas of this model; the tenant's prices are
    null where it is charged the list price. `version` is that of the tenant's stream, for `expected_version`.
    """

    model_id: str
    state: str
    is_enabled: bool
    is_default: bool
    priority: int
    fallback_models: list[str]
    custom_settings: dict[str, str]
    monthly_token_limit: int | None
    daily_token_limit: int | None
    monthly_request_limit: int | None
    custom_cost_per_token_pico_usd: int | None
    custom_cost_per_character_pico_usd: int | None
    dimensions: int
    minimum_tier: str
    is_deprecated: bool
    usable: bool
    over_price_ceiling: bool
    reason: str | None
    version: int


class AgentPreferences(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How the agent wants its models chosen: `strategy` is tenant_default, fixed, cost, latency or quality, `models` are ranked.

    `required_dimensions`, `max_latency_ms` and `max_cost_per_request_nano_usd` say what is adequate; `monthly_budget_nano_usd` is a hard budget.
    """

    strategy: str = "tenant_default"
    models: list[str] = []
    task_models: dict[str, str] = {}
    required_dimensions: int | None = None
    max_cost_per_request_nano_usd: int | None = None
    monthly_budget_nano_usd: int | None = None
    max_latency_ms: int | None = None

    def stated(self) -> Preferences:
        """As events have them."""
        return Preferences(**msgspec.structs.asdict(self))


class Agent(msgspec.Struct, frozen=True):
    """An agent and what it states. `agent_version` is its own; `version` counts its statements, for `expected_version`."""

    agent_id: str
    name: str | None
    agent_version: str | None
    preferences: AgentPreferences
    capabilities: list[str]
    version: int


def tenant_model_document(
    plane: ControlPlane,
    tenant: str,
    configured: TenantModelConfigured,
    menu: Menu,
    *,
    exceeded: bool,
    ceiling: bool,
    now: float,
) -> TenantModel:
    """A model of the tenant. `exceeded`: a hard quota of it is used up at the moment, `ceiling`: a soft budget of the tenant is; `now` in
    seconds since the epoch.
    """
    name = configured.model
    model = plane.models.models[name]
    closed = menu.closed.get(name)
    entry = menu.names.get(name)
    reason = closed.reason if closed is not None else None
    if entry is not None and entry.testing:
        reason = "it is being tested: only keys with the scope 'admin' may use it"
    elif entry is None and reason is None:
        reason = "the catalogue has it no longer"
    elif exceeded:
        reason = "a quota of it is used up"
    on = configured.state == "enabled"
    limits = {field: limit_of(plane, tenant, name, field) for field in LIMITS}
    return TenantModel(
        model_id=name,
        state="quota_exceeded" if on and exceeded else configured.state,
        is_enabled=on,
        is_default=configured.default,
        priority=configured.priority,
        fallback_models=configured.fallback_models,
        custom_settings=configured.custom_settings,
        **limits,
        **{field: _own_price(plane, tenant, name, unit, now) for field, unit in PRICES.items()},
        dimensions=model.spec.dimensions,
        minimum_tier=model.spec.minimum_tier,
        is_deprecated=deprecated(model),
        usable=reason is None,
        over_price_ceiling=ceiling and entry is not None and any(e.cost < entry.cost for e in menu.orders["cost"]),
        reason=reason,
        version=plane.versions.get(f"tenant/{tenant}", 0),
    )


def _own_price(plane: ControlPlane, tenant: str, model: str, unit: str, now: float) -> int | None:
    """What the tenant is charged instead of the list price, at the first provider where it has a price of its own."""
    for offering in plane.models.models[model].offerings:
        for begin, end, entry in plane.prices.spans((model, offering.provider, tenant)):
            if begin <= now < end and entry.set.unit == unit:
                return entry.set.unit_pico_usd
    return None


def agent_document(plane: ControlPlane, tenant: str, data: AgentRegistered) -> Agent:
    """An agent of the tenant. The metadata that it states stay sealed."""
    return Agent(
        agent_id=data.agent,
        name=data.name,
        agent_version=data.version,
        preferences=AgentPreferences(**msgspec.structs.asdict(data.preferences)),
        capabilities=data.capabilities,
        version=plane.versions.get(agent_stream(tenant, data.agent), 0),
    )


class TenantSettings(msgspec.Struct, frozen=True):
    """A tenant's settings. `version` is that of the tenant's stream, for `expected_version`."""

    tenant: str
    failover: Literal["same_space", "any", "none"]
    time_zone: str
    require_known_prices: bool
    tier: Literal["free", "starter", "pro", "enterprise"]
    price_ceiling: Literal["cheapest", "none"]
    version: int


def tenant_settings(plane: ControlPlane, tenant: str) -> TenantSettings:
    """The settings of a tenant as of now."""
    settings = plane.tenants.of(tenant).settings
    fields = {name: getattr(settings, name) for name in settings.__struct_fields__ if name != "actor"}
    return TenantSettings(tenant=tenant, **fields, version=plane.versions.get(f"tenant/{tenant}", 0))
