"""The control plane: everything that decides what a request may use, as of one position of the log. In memory; the hot path asks it.

It is kept current by folding the log's decisions in order. Each part is a file of its own; `decide` functions beside the parts turn what
somebody wants into events, or refuse it.
"""

from __future__ import annotations

from domain.collections import Collections
from domain.discoveries import Discoveries
from domain.endpoints import Endpoints
from domain.events import EventData
from domain.live_settings import LiveSettings
from domain.model_catalog import ModelCatalog
from domain.prices import PriceBook
from domain.quotas import Quotas
from domain.rate_limits import RateLimits
from domain.tenancy import Directory
from domain.tenant_config import TenantConfigs
from domain.webhooks import Webhooks


class ControlPlane:
    """See the module. `versions` holds the number of events on each decision stream, for optimistic concurrency."""

    def __init__(self) -> None:
        self.position = 0
        self.versions: dict[str, int] = {}
        self.directory = Directory()
        self.models = ModelCatalog()
        self.endpoints = Endpoints()
        self.discoveries = Discoveries()
        self.prices = PriceBook()
        self.tenants = TenantConfigs()
        self.quotas = Quotas()
        self.rate_limits = RateLimits()
        self.webhooks = Webhooks()
        self.collections = Collections()
        self.settings = LiveSettings()

    def apply(self, position: int, tenant: str, stream: str, version: int | None, data: EventData, at: int = 0) -> None:
        """Fold an event of the log (in order). `version` is its number on its stream, `at` when it was recorded (microseconds, epoch)."""
        self.directory.apply(position, tenant, data, version, at)
        self.models.apply(data)
        self.endpoints.apply(tenant, data)
        self.discoveries.apply(data)
        self.prices.apply(data)
        self.tenants.apply(tenant, data)
        self.quotas.apply(tenant, data, position)
        self.rate_limits.apply(tenant, data)
        self.webhooks.apply(position, data)
        self.collections.apply(tenant, data)
        self.settings.apply(data)
        self.passed(position, stream, version)

    def passed(self, position: int, stream: str, version: int | None) -> None:
        """An event was seen, whether or not this build knows what it means."""
        self.position = position
        self.directory.position = position
        if version is not None:
            self.versions[stream] = version
