"""What tidies up after the dead: closes the leases of fenced instances by what the log says, and checks that leases and log agree."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from datetime import date, timedelta

import structlog

from adapters.postgres import quota_leases
from adapters.postgres.pool import Pool
from adapters.postgres.quota_leases import Drift
from domain.calendar import Days, period_of, utc_day
from domain.plane import ControlPlane
from domain.ports.event_log import LogUnavailable
from domain.quotas import QuotaKey

_log = structlog.get_logger("emberlog.quota")
CLOSE_SECONDS = 1.0
LOOK_SECONDS = 10.0
DRIFT_SECONDS = 60.0
_AGAIN_SECONDS = 2.0
"""A quota that was just set is joined by every gateway within a second: what is off only until then is no drift."""
_WORDS = {"day": "daily", "month": "monthly"}


class Upkeep:
    """Run `run` in each process: whoever is first does it, the others find it done. `drift` is by how much leases and log disagreed last."""

    def __init__(self, pool: Pool, plane: ControlPlane) -> None:
        self._pool = pool
        self._plane = plane
        self._days = Days()
        self._since = 0
        self.drift = 0
        self.usage: dict[tuple[str, ...], float] = {}
        """(tenant, type) -> the used share of the limit, of several quotas of a type the fullest; types as `daily_tokens`,
        `model_monthly_requests`, `agent_monthly_nano_usd`."""

    async def run(self) -> None:
        """Close instances every second, look at the usage every ten, check for drift every minute, until cancelled."""
        async with asyncio.TaskGroup() as group:
            group.create_task(_repeat(self.close_dead, CLOSE_SECONDS))
            group.create_task(_repeat(self.look, LOOK_SECONDS))
            group.create_task(_repeat(self.check_drift, DRIFT_SECONDS))

    async def look(self) -> int:
        """See how much of each quota in force is used in its present window; returns how many windows. Raises `LogUnavailable`."""
        quotas = self._plane.quotas
        days: dict[str, str] = {}
        for tenant in quotas.tenants():
            zone = self._plane.tenants.of(tenant).settings.time_zone
            days[tenant] = self._days.day(zone, time.time_ns() // 1000)
        periods = set(days.values())
        found = await quota_leases.windows(self._pool, [*periods, *{day[:7] for day in periods}]) if periods else []
        usage: dict[tuple[str, ...], float] = {}
        for window in found:
            day = days.get(window.tenant)
            length = "day" if len(window.period) == 10 else "month"
            quota = quotas.of(window.tenant).get(QuotaKey(window.scope, window.subject, window.unit, length))
            if day is None or window.period != period_of(length, day) or quota is None:
                continue
            scope = {"tenant": "", "model": "model_"}.get(window.scope, "agent_")
            place = (window.tenant, f"{scope}{_WORDS[length]}_{window.unit}")
            share = window.used / quota.limit if quota.limit else 1.0
            usage[place] = max(share, usage.get(place, 0.0))
        self.usage = usage
        return len(found)

    async def close_dead(self) -> int:
        """Close the fenced instances whose every event the quota view has folded; returns how many. Raises `LogUnavailable`."""
        since, instances = await quota_leases.unclosed(self._pool, self._since)
        done = [await quota_leases.close_instance(self._pool, instance) for instance in instances]
        if all(done):
            self._since = since
        return sum(done)

    async def check_drift(self, again_seconds: float = _AGAIN_SECONDS) -> int:
        """Compare the leases of the quotas in force with the log, twice where they disagree; what they have too little is counted.

        Raises `LogUnavailable`.
        """
        today = date.fromisoformat(utc_day(time.time_ns() // 1000))
        since = today - timedelta(days=1)  # no zone is a day behind
        await quota_leases.recount(self._pool, today.replace(day=1))
        first = await self._drifts(since)
        if first:
            await asyncio.sleep(again_seconds)
            second = {_place(found) for found in await self._drifts(since)}
            first = [found for found in first if _place(found) in second]
        for found in first:
            _log.error(
                "quota_drift", tenant=found.tenant, scope=found.scope, unit=found.unit, period=found.period,
                instance=found.instance, off=found.off,
            )  # fmt: skip
            await quota_leases.count_window(
                self._pool, found
            )  # whatever the reason: no more is granted than the log leaves
        self.drift = sum(found.off for found in first)
        return self.drift

    async def _drifts(self, since: date) -> list[Drift]:
        return [found for found in await quota_leases.drift(self._pool, since) if self._in_force(found)]

    def _in_force(self, found: Drift) -> bool:
        """Whether the quota is the one that the lease is of: of one that was removed nothing is leased any more."""
        window = "day" if len(found.period) == 10 else "month"
        quota = self._plane.quotas.of(found.tenant).get(QuotaKey(found.scope, found.subject, found.unit, window))
        return quota is not None and quota.position == found.limit_position


def _place(found: Drift) -> tuple[str, str, str, str, str, str]:
    return found.tenant, found.scope, found.subject, found.unit, found.period, found.instance


async def _repeat(work: Callable[[], Awaitable[int]], seconds: float) -> None:
    while True:
        await asyncio.sleep(seconds)
        try:
            await work()
        except LogUnavailable as error:
            _log.warning("quota_upkeep_postponed", reason=str(error))
        except Exception as error:  # whatever it is, upkeep must go on once it has passed
            _log.error("quota_upkeep_failed", exc_info=error)
