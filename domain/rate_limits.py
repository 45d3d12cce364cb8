"""Rate limits of tenants, keys, agents and threads. Folded from their events."""

from __future__ import annotations

from domain.events import EventData, RateLimitRemoved, RateLimitSet


class RateLimits:
    """The rate limits of every tenant, by (scope, subject). `version` grows with every change."""

    def __init__(self) -> None:
        self.version = 0
        self._tenants: dict[str, dict[tuple[str, str | None], RateLimitSet]] = {}

    def of(self, tenant: str) -> dict[tuple[str, str | None], RateLimitSet]:
        """The tenant's; not to be changed."""
        return self._tenants.get(tenant, {})

    def apply(self, tenant: str, data: EventData) -> None:
        """Fold one event of the tenant."""
        if not isinstance(data, RateLimitSet | RateLimitRemoved):
            return
        self.version += 1
        limits = self._tenants.setdefault(tenant, {})
        if isinstance(data, RateLimitSet):
            limits[data.scope, data.subject] = data
        else:
            limits.pop((data.scope, data.subject), None)
