"""The watch over alerts: one process of an installation follows the log and the views and works out what is news, the others stand by."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from datetime import timedelta
from uuid import uuid4

import structlog

from adapters.postgres import alert_facts, followers
from adapters.postgres.alert_facts import Fact
from adapters.postgres.pool import UNREACHABLE, Pool
from domain.alerts import FAILOVER, MODEL_DEPRECATED, PROJECTION_LAG, QUOTA_DRIFT, Alert, Condition
from domain.endpoint_alerts import ENDPOINT_KINDS
from domain.events import SYSTEM_TENANT
from domain.model_lifecycle import DEPRECATED
from domain.plane import ControlPlane
from gateway.alerts.delivery import POST_SECONDS, AlertmanagerPost
from gateway.alerts.evaluator import Evaluator
from gateway.alerts.occurrences import Failovers, price_conditions
from projections.alerts.query import count_open, read_alerts
from projections.cursor import Standing
from projections.worker import reason

_log = structlog.get_logger("emberlog.alerts")
NAME = "alerts"
LEASE_SECONDS = 10.0
POLL_SECONDS = 1.0
FULL_SECONDS = 30.0
"""Everything is looked at again after this long: windows end although nobody uses anything."""
LAG_SECONDS = 60.0
"""A view further behind raises an alert; it is over once it has come within a second."""
REACH_SECONDS = 10.0
_AT_ONCE = 100_000
_MAX_BEHIND = 1_000_000
"""What happened longer ago than this many events is no news. Quotas are looked at as they stand in any case."""
_SYSTEM_KINDS = (PROJECTION_LAG, QUOTA_DRIFT, MODEL_DEPRECATED)
_PLACE = "SELECT position FROM projections.cursors WHERE name = 'quota' AND state = 'live'"


class AlertWatch:
    """Run one in each process: `run` until cancelled. `wake` when the log has grown.

    `reach` waits (at most so many seconds) until the control plane has folded a position. `standings` says where the views stand,
    `drift` by how much leases of quotas and the log disagree, `endpoints` what holds of the endpoints at a time (seconds since the epoch).
    """

    def __init__(
        self,
        pool: Pool,
        plane: ControlPlane,
        evaluator: Evaluator,
        *,
        reach: Callable[[int, float], Awaitable[None]],
        standings: Callable[[], Mapping[str, Standing]],
        drift: Callable[[], int] = lambda: 0,
        endpoints: Callable[[float], list[Condition]] = lambda _: [],
        manager: AlertmanagerPost | None = None,
        poll_seconds: float = POLL_SECONDS,
        lease_seconds: float = LEASE_SECONDS,
    ) -> None:
        self.open: dict[str, int] = {}
        """How many alerts of each kind are open, when this process last looked (it looks while it leads)."""
        self.leading = False
        self._pool = pool
        self._plane = plane
        self._evaluator = evaluator
        self._reach = reach
        self._standings = standings
        self._drift = drift
        self._endpoints = endpoints
        self._manager = manager
        self._poll_seconds = poll_seconds
        self._lease = timedelta(seconds=lease_seconds)
        self._owner = uuid4()
        self._wake = asyncio.Event()
        self._position = 0

    @property
    def manager_failures(self) -> int:
        """Tellings of the Alertmanager that failed since the last good one."""
        return 0 if self._manager is None else self._manager.failures

    def wake(self) -> None:
        """There may be something new."""
        self._wake.set()

    async def run(self) -> None:
        """Watch while no other process does, until cancelled."""
        while True:
            try:
                fence = await followers.take(self._pool, NAME, self._owner, self._lease)
                if fence is not None:
                    await self._lead(fence)
            except Exception as error:
                # The database is away, mostly. Whatever it is, the watch must go on once it has passed.
                _log.warning("alerts_postponed", reason=reason(error))
            await asyncio.sleep(self._lease.total_seconds() / 4)

    async def _lead(self, fence: int) -> None:
        self.leading = True
        self._position = await followers.position(self._pool, NAME)
        work = [asyncio.create_task(w) for w in (self._hold(fence), self._follow(), self._tell())]
        try:
            done, _ = await asyncio.wait(work, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                task.result()
            _log.warning("alerts_taken_over")
        finally:
            self.leading = False
            self.open = {}
            for task in work:
                task.cancel()
            await asyncio.gather(*work, return_exceptions=True)
            with suppress(*UNREACHABLE):
                await followers.renew(self._pool, NAME, fence, self._lease, self._position)
                await followers.release(self._pool, NAME, fence)

    async def _hold(self, fence: int) -> None:
        held = True
        while held:
            await asyncio.sleep(self._lease.total_seconds() / 3)
            held = await followers.renew(self._pool, NAME, fence, self._lease, self._position)

    async def _tell(self) -> None:
        """Tell the Alertmanager every now and then, and soon after there is news."""
        while self._manager is not None:
            self._evaluator.changed.clear()
            await self._manager.post()
            with suppress(TimeoutError):
                async with asyncio.timeout(POST_SECONDS if not self._manager.failures else POST_SECONDS / 6):
                    await self._evaluator.changed.wait()
            await asyncio.sleep(self._poll_seconds)  # for the view to show what is new
        await asyncio.Event().wait()

    async def _follow(self) -> None:
        failovers = Failovers(await read_alerts(self._pool, kinds=[FAILOVER], still_open=True), self._evaluator.clock())
        looked_at = float("-inf")
        while True:
            self._wake.clear()
            await self._news(failovers)
            if time.monotonic() - looked_at > FULL_SECONDS:
                await self._evaluator.evaluate_all()
                looked_at = time.monotonic()
            await self._system()
            with suppress(TimeoutError):
                async with asyncio.timeout(self._poll_seconds):
                    await self._wake.wait()
                # Under load every append wakes us: what is over a limit is said within a moment all the same.
                await asyncio.sleep(self._poll_seconds / 2)

    async def _news(self, failovers: Failovers) -> None:
        """What the log says since, as far as the quota view has counted it."""
        upto = int(await self._pool.fetchval(_PLACE) or 0)
        now = self._evaluator.clock()
        self._position = max(self._position, upto - _MAX_BEHIND)
        while self._position < upto:
            end = min(upto, self._position + _AT_ONCE)
            facts = await alert_facts.facts(self._pool, self._position, end)
            await self._told(facts, failovers, now)
            self._position = end
        await self._evaluator.settle([], failovers.over(now))

    async def _told(self, facts: list[Fact], failovers: Failovers, now: float) -> None:
        if decided := max((fact.decided for fact in facts), default=0):
            await self._reach(decided, REACH_SECONDS)
        tenants = {fact.tenant for fact in facts if fact.decided or self._plane.quotas.of(fact.tenant)}
        if any(fact.decided and fact.tenant == SYSTEM_TENANT for fact in facts):  # a model's state has changed
            tenants |= await self._evaluator.everyone()
        await self._evaluator.evaluate(tenants)
        unknown, priced = price_conditions(facts)
        await self._evaluator.settle(unknown + failovers.conditions(facts, now), priced)

    async def _system(self) -> None:
        """What holds of the installation itself, and of endpoints, whoever they serve."""
        self.open = await count_open(self._pool)
        ours = await read_alerts(self._pool, tenants=[SYSTEM_TENANT], kinds=_SYSTEM_KINDS, still_open=True)
        theirs = await read_alerts(self._pool, kinds=ENDPOINT_KINDS, still_open=True)
        found = self._conditions(ours) + self._endpoints(self._evaluator.clock())
        await self._evaluator.settle(found, [alert.alert for alert in (*ours, *theirs)])

    def _conditions(self, known: list[Alert]) -> list[Condition]:
        behind = {alert.labels.get("projection") for alert in known if alert.kind == PROJECTION_LAG}
        found = []
        for name, seen in self._standings().items():
            if seen.error is not None or seen.lag_seconds > (1.0 if name in behind else LAG_SECONDS):
                what = (
                    "is halted before an event that it cannot fold" if seen.error is not None else "is behind the log"
                )
                found.append(
                    Condition(
                        PROJECTION_LAG,
                        SYSTEM_TENANT,
                        {"projection": name},
                        f"the view {name} {what}: see `emberlog projections list`",
                    )
                )
        if drift := self._drift():
            summary = f"the leases of quotas and the log disagree by {drift}: see the gateways' logs"
            found.append(Condition(QUOTA_DRIFT, SYSTEM_TENANT, {}, summary, used=drift))
        for model in self._plane.models.models.values():
            if model.state == DEPRECATED and (count := len(self._plane.tenants.using(model.id))):
                summary = f"the model {model.id} is deprecated, and tenants have it configured: {count}"
                found.append(Condition(MODEL_DEPRECATED, SYSTEM_TENANT, {"model": model.id}, summary, used=count))
        return found
