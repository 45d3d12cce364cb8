"""What quotas say of a model at the moment, for selection: from the leases of this process, or from the view of all of them."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence

from domain.calendar import Days
from domain.errors import GatewayError
from domain.plane import ControlPlane
from domain.quota_lease import Lease
from domain.quota_ledger import Amounts
from domain.quotas import OWN, UNITS
from gateway.quota import refusals
from gateway.quota.gate import QuotaGate
from gateway.quota.keeper import Keeper
from projections.quota.query import QuotaStanding

FRESH_SECONDS = 2.0
"""For so long what the database last said of a window is believed; after that only the gate can tell."""


class LeasedQuotas:
    """A `gateway.service.selector.Live`, without a call: what this process does not know of it does not refuse, the gate does."""

    def __init__(self, plane: ControlPlane, keeper: Keeper, gate: QuotaGate) -> None:
        self._plane = plane
        self._keeper = keeper
        self._gate = gate
        self._days = Days()
        self._clock = asyncio.get_running_loop().time

    def refusal(self, tenant: str, agent: str, model: str, tokens: int, nano_usd: int | None) -> GatewayError | None:
        """See `Live.refusal`."""
        self._keeper.follow()
        zone = self._plane.tenants.of(tenant).settings.time_zone
        day = self._days.day(zone, time.time_ns() // 1000)
        need: Amounts = (tokens, 1, nano_usd or 0)
        for lease in self._keeper.ledger.account(tenant, agent, model, day).leases:
            if lease.hard and self._lacks(lease, need[lease.unit]):
                return refusals.exceeded(lease, need[lease.unit], zone, [])
        return None

    def over_soft_budget(self, tenant: str) -> bool:
        """See `Live.over_soft_budget`."""
        return self._gate.over_soft_budget(tenant)

    def _lacks(self, lease: Lease, need: int) -> bool:
        if lease.left >= need or not need:
            return False
        now = self._clock()
        fresh = now - lease.reported_at < FRESH_SECONDS
        return (
            need > lease.limit
            or lease.refuses(need, now)
            or (fresh and need > lease.limit - lease.seen_granted + max(lease.left, 0))
        )


class StandingQuotas:
    """The same for one tenant from its quotas as the view has them, what is in flight included; for answers that may take a query."""

    def __init__(self, standings: Sequence[QuotaStanding]) -> None:
        self._standings = standings

    def refusal(self, tenant: str, agent: str, model: str, tokens: int, nano_usd: int | None) -> GatewayError | None:
        """See `Live.refusal`. A request of a size that is not known needs at least one of everything."""
        amounts = (tokens, 1, nano_usd or 0) if tokens else (1, 1, 1)
        need = dict(zip(UNITS, amounts, strict=True))
        for standing in self._binding(agent, model):
            if standing.used + standing.reserved + need[standing.unit] > standing.limit:
                return refusals.standing(standing, need[standing.unit])
        return None

    def over_soft_budget(self, tenant: str) -> bool:
        """See `Live.over_soft_budget`."""
        return any(not s.hard and s.unit == "nano_usd" and not s.within for s in self._standings)

    def exceeded(self, model: str) -> bool:
        """Whether a hard quota of the model itself is used up in its present window."""
        return any(s.hard and s.scope == "model" and s.subject == model and not s.within for s in self._standings)

    def remaining(self, agent: str, model: str) -> int | None:
        """The tokens that the tightest hard quota of tokens has left for such requests; None where there is none."""
        left = [s.limit - s.used - s.reserved for s in self._binding(agent, model) if s.unit == "tokens"]
        return max(0, min(left)) if left else None

    def _binding(self, agent: str, model: str) -> list[QuotaStanding]:
        subjects = {"tenant": None, "model": model, "agent": agent, OWN: agent}
        return [s for s in self._standings if s.hard and s.subject == subjects[s.scope]]
