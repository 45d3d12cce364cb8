"""The gate of the quotas: a request takes what it may use of each before it is logged, or does not get in."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Any

from domain.calendar import Days
from domain.errors import GatewayError
from domain.plane import ControlPlane
from domain.ports.event_log import InstanceFenced
from domain.quota_lease import Lease
from domain.quota_ledger import Account, Amounts, Hold
from gateway.quota import refusals
from gateway.quota.keeper import Keeper
from gateway.service.pending import Pending
from gateway.service.pricing import reserved_nano_usd
from gateway.service.refusals import log_error

Alternatives = Callable[[Pending], list[Any]]
"""What could be used instead, for the details of a refusal."""


class QuotaGate:
    """A `gateway.service.service.Gate`, the last one: what it lets in holds what it took until its outcome.

    No call and no task in the usual case: leases are refilled before they are empty.
    """

    def __init__(self, plane: ControlPlane, keeper: Keeper, alternatives: Alternatives | None = None) -> None:
        self._plane = plane
        self._keeper = keeper
        self._alternatives = alternatives
        self._days = Days()
        self._clock = asyncio.get_running_loop().time

    def __call__(self, pending: Pending) -> Awaitable[None] | None:
        """Raises `quota_exceeded`, `budget_exceeded` or, where a hard budget meets an unknown price, `no_model_available`; the wait
        ends so, too, or in `unavailable`.
        """
        keeper = self._keeper
        keeper.follow()
        ledger = keeper.ledger
        held = pending.hold
        if isinstance(held, Hold) and held.of(ledger):
            return None
        tenant, model = pending.tenant, pending.selection.model.id
        pending.day = self._days.day(self._plane.tenants.of(tenant).settings.time_zone, pending.at)
        account = ledger.account(tenant, pending.agent, model, pending.day)
        nano_usd = reserved_nano_usd(pending)
        if nano_usd is None:
            if account.priced:
                raise refusals.unpriced(model)
            nano_usd = 0
        need = (pending.total_tokens, 1, nano_usd)
        now = self._clock()
        hold = ledger.take(account, need, now)
        if hold is None:
            for lease in account.leases:
                if lease.hard and lease.refuses(need[lease.unit], now):
                    raise self._refusal(pending, lease, need[lease.unit])
            return self._wait(pending, account, need)
        pending.hold = hold
        return None

    async def _wait(self, pending: Pending, account: Account, need: Amounts) -> None:
        hold = await self._keeper.obtain(account, need, lambda lease, n: self._refusal(pending, lease, n))
        if not hold.of(self._keeper.ledger):  # what it holds was granted to an instance that is fenced by now
            raise log_error(InstanceFenced())
        pending.hold = hold

    def _refusal(self, pending: Pending, lease: Lease, need: int) -> GatewayError:
        zone = self._plane.tenants.of(pending.tenant).settings.time_zone
        return refusals.exceeded(lease, need, zone, [] if self._alternatives is None else self._alternatives(pending))

    def over_soft_budget(self, tenant: str) -> bool:
        """Whether a soft budget of the tenant is used up in its present window. Asked with every choice of a model."""
        if not self._keeper.has_soft_budget(tenant):
            return False
        day = self._days.day(self._plane.tenants.of(tenant).settings.time_zone, time.time_ns() // 1000)
        return self._keeper.over_soft_budget(tenant, {"day": day, "month": day[:7]})
