"""Quotas and budgets: what each tenant may use in a calendar window. Folded from its events."""

from __future__ import annotations

import msgspec

from domain.events import EventData, QuotaRemoved, QuotaSet


class QuotaKey(msgspec.Struct, frozen=True, order=True):
    """What there is one quota for: a tenant, a model or an agent of it (`subject`), a unit and a window."""

    scope: str
    subject: str
    unit: str
    window: str


class Quotas:
    """The quotas of every tenant. `version` grows with every change."""

    def __init__(self) -> None:
        self.version = 0
        self._tenants: dict[str, dict[QuotaKey, QuotaSet]] = {}

    def of(self, tenant: str) -> dict[QuotaKey, QuotaSet]:
        """The tenant's; not to be changed."""
        return self._tenants.get(tenant, {})

    def apply(self, tenant: str, data: EventData) -> None:
        """Fold one event of the tenant."""
        if not isinstance(data, QuotaSet | QuotaRemoved):
            return
        self.version += 1
        key = QuotaKey(data.scope, data.subject or "", data.unit, data.window)
        quotas = self._tenants.setdefault(tenant, {})
        if isinstance(data, QuotaSet):
            quotas[key] = data
        else:
            quotas.pop(key, None)
