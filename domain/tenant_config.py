"""What each tenant has configured: its settings, and the models it uses. Folded from its events."""

from __future__ import annotations

from domain.events import EventData, TenantConfigured, TenantModelConfigured, TenantModelRemoved


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
                config.models[data.model] = data
                if data.default:
                    config.default = data.model
                elif config.default == data.model:
                    config.default = None
            case TenantModelRemoved():
                config.models.pop(data.model, None)
                if config.default == data.model:
                    config.default = None
