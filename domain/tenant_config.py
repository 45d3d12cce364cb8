"""What each tenant has configured: its settings, and the models it uses. Folded from its events."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import msgspec

from domain.calendar import zones
from domain.decision import Decision
from domain.errors import GatewayError
from domain.events import EventData, TenantConfigured, TenantModelConfigured, TenantModelRemoved
from domain.problems import Problems

if TYPE_CHECKING:
    from domain.plane import ControlPlane

TIERS = ("free", "starter", "pro", "enterprise")
"""Lowest first: a tenant may use models of its tier and below."""
FAILOVER = ("same_space", "any", "none")
PRICE_CEILINGS = ("cheapest", "none")


class TenantConfig:
    """One tenant's configuration. `version` grows with every change; `default` is the id of its default model."""

    def __init__(self) -> None:
        self.version = 0
        self.settings = TenantConfigured()
        self.models: dict[str, TenantModelConfigured] = {}
        self.default: str | None = None


_UNCONFIGURED = TenantConfig()


class TenantConfigs:
    """The configuration of every tenant that has one."""

    def __init__(self) -> None:
        self._tenants: dict[str, TenantConfig] = {}

    def of(self, tenant: str) -> TenantConfig:
        """The tenant's; an empty one, not to be changed, where it has none."""
        return self._tenants.get(tenant, _UNCONFIGURED)

    def using(self, model: str) -> list[str]:
        """The tenants that have this model configured."""
        return [tenant for tenant, config in self._tenants.items() if model in config.models]

    def apply(self, tenant: str, data: EventData) -> None:
        """Fold one event of the tenant."""
        if not isinstance(data, TenantConfigured | TenantModelConfigured | TenantModelRemoved):
            return
        config = self._tenants.setdefault(tenant, TenantConfig())
        config.version += 1
        match data:
            case TenantConfigured():
                config.settings = data
            case TenantModelConfigured():
                if data.default and config.default not in (None, data.model):
                    before = config.models[config.default]
                    config.models[config.default] = msgspec.structs.replace(before, default=False)
                config.models[data.model] = data
                if data.default:
                    config.default = data.model
                elif config.default == data.model:
                    config.default = None
            case TenantModelRemoved():
                config.models.pop(data.model, None)
                if config.default == data.model:
                    config.default = None


def decide_tenant_settings(
    plane: ControlPlane, tenant: str, wanted: Mapping[str, Any], *, operator: bool, actor: str
) -> list[Decision]:
    """Change the settings named in `wanted`, of `TenantConfigured`. The tier is the operators' to set."""
    problems = Problems()
    for field, options in (("failover", FAILOVER), ("tier", TIERS), ("price_ceiling", PRICE_CEILINGS)):
        if field in wanted and wanted[field] not in options:
            problems.add(field, f"{str(wanted[field])[:40]!r} is none of {', '.join(options)}")
    if "time_zone" in wanted and wanted["time_zone"] not in zones():
        problems.add(
            "time_zone",
            f"there is no time zone {str(wanted['time_zone'])[:40]!r}: expected an IANA name such as Europe/Paris",
        )
    problems.check(f"settings of tenant {tenant}")
    current = plane.tenants.of(tenant).settings
    if "tier" in wanted and wanted["tier"] != current.tier and not operator:
        raise GatewayError("forbidden", "the tier is set by operators: leave it out", details={"field": "tier"})
    data = msgspec.structs.replace(current, **wanted, actor=actor)
    if msgspec.structs.replace(data, actor=current.actor) == current:
        return []
    return [Decision(tenant, f"tenant/{tenant}", data)]
