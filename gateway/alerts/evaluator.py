"""Working alerts out: what holds of a tenant now, against what the alerts view knows, as events.

Whoever does it, and however often: an alert's episode is logged once. A tenant for whom it fails does not keep the others waiting.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from datetime import UTC, datetime, timedelta

import structlog

from adapters.postgres import alert_facts
from adapters.postgres.pool import Pool
from domain.alerts import (
    EVALUATION_FAILED,
    MODEL_DEPRECATED,
    QUOTA_KINDS,
    Alert,
    Change,
    Condition,
    alert_id,
    changes,
    deprecation_conditions,
    quota_conditions,
)
from domain.calendar import Days, period_of
from domain.events import SYSTEM_TENANT, AlertRaised
from domain.model_lifecycle import DEPRECATED
from domain.plane import ControlPlane
from domain.ports.event_log import Appended, AppendStatus, NewEvent
from domain.quotas import QuotaKey
from projections.alerts.query import read_alerts, tenants_with_open
from projections.alerts.used import read_used
from projections.worker import reason

_log = structlog.get_logger("emberlog.alerts")
TENANT_KINDS = (*QUOTA_KINDS, MODEL_DEPRECATED)
"""The kinds that are worked out of a tenant's state; others come of events, or of the installation's state."""
TRIES = 5
RETRY = timedelta(seconds=10)
_AT_ONCE = 200
_VIEW_SECONDS = 5.0
"""How long the view is waited for to show what was told here. It parks what it cannot fold, so that it gets there."""
_PLACE = "SELECT position FROM projections.cursors WHERE name = 'alerts' AND state = 'live'"

Append = Callable[[Sequence[NewEvent]], Awaitable[list[Appended]]]


class Evaluator:
    """`evaluate` tenants; `append` writes the events. `clock` is seconds since the epoch."""

    def __init__(
        self, pool: Pool, plane: ControlPlane, append: Append, *, clock: Callable[[], float] = time.time
    ) -> None:
        self.clock = clock
        self.changed = asyncio.Event()
        """Set whenever an alert was raised or resolved here."""
        self._pool = pool
        self._plane = plane
        self._append = append
        self._days = Days()
        self._told = 0

    async def evaluate_now(self, tenant: str) -> int:
        """Bring a tenant's alerts up to date with its quotas and the quota view; returns the position to wait for, 0 where nothing changed.

        Raises what the pool and the log raise.
        """
        return await self.evaluate([tenant])

    async def evaluate(self, tenants: Iterable[str]) -> int:
        """The same of many tenants; those that fail are noted, and left out until they are due again."""
        failed = {f.subject: f for f in await alert_facts.failures(self._pool)}
        wanted = [t for t in sorted({*tenants}) if t not in failed or failed[t].due]
        reached = 0
        for start in range(0, len(wanted), _AT_ONCE):
            reached = max(reached, await self._some(wanted[start : start + _AT_ONCE], failed.keys()))
        return reached

    async def evaluate_all(self) -> int:
        """Every tenant that may have alerts to raise or to resolve, those among them that failed and are due again."""
        failed = {f.subject for f in await alert_facts.failures(self._pool)}
        return await self.evaluate(failed | await self.everyone())

    async def everyone(self) -> set[str]:
        """The tenants that may have alerts to raise, or, by what is open, to resolve."""
        found = await tenants_with_open(self._pool, TENANT_KINDS)
        found.update(self._plane.quotas.tenants())
        for model in self._deprecated():
            found.update(self._plane.tenants.using(model))
        return found

    async def _some(self, tenants: list[str], failed: Iterable[str]) -> int:
        now = self.clock()
        at = int(now * 1_000_000)
        days = {t: self._days.day(self._plane.tenants.of(t).settings.time_zone, at) for t in tenants}
        used = await read_used(self._pool, {t: self._plane.quotas.of(t) for t in tenants}, days)
        held: dict[str, list[Condition]] = {}
        errors: dict[str, str] = {}
        for tenant in tenants:
            try:
                held[tenant] = self._conditions(tenant, used[tenant], days[tenant])
            except Exception as error:  # whatever is wrong with one must not keep the others' alerts back
                errors[tenant] = reason(error)
        known = await self._known(tenants, [c.alert for conditions in held.values() for c in conditions])
        found: list[Change] = []
        for tenant, conditions in held.items():
            quotas, periods = self._plane.quotas.of(tenant), _periods(days[tenant])
            found += changes(conditions, known.get(tenant, []), now, quotas=quotas, periods=periods)
        reached, refused = await self.tell(found)
        errors.update(refused)
        for tenant, why in errors.items():
            reached = max(reached, await self._failed(tenant, why))
        for tenant in held.keys() - errors.keys():
            if tenant in failed:
                await alert_facts.succeeded(self._pool, tenant)
                reached = max(reached, await self._condition_of_failure(tenant, None))
        return reached

    def _conditions(self, tenant: str, used: Mapping[QuotaKey, int], day: str) -> list[Condition]:
        plane = self._plane
        if tenant in plane.directory.shredded:
            return []
        found = quota_conditions(tenant, plane.quotas.of(tenant), used, _periods(day))
        models = {m: _day(at) for m, at in self._deprecated().items() if m in plane.tenants.of(tenant).models}
        return found + deprecation_conditions(tenant, models)

    def _deprecated(self) -> dict[str, int | None]:
        return {m.id: m.removed_at for m in self._plane.models.models.values() if m.state == DEPRECATED}

    async def _known(self, tenants: list[str], alerts: list[str]) -> dict[str, list[Alert]]:
        """Those that are open, and those that these conditions would raise again."""
        await self._view_shows()
        rows = await read_alerts(self._pool, tenants=tenants, kinds=TENANT_KINDS, still_open=True)
        # Of the installation only the quotas of its own requests are worked out here; its other alerts are the watch's.
        rows = [a for a in rows if a.tenant != SYSTEM_TENANT or a.kind in QUOTA_KINDS]
        rows += await read_alerts(self._pool, tenants=tenants, alerts=alerts, still_open=False)
        found: dict[str, list[Alert]] = {}
        for alert in rows:
            found.setdefault(alert.tenant, []).append(alert)
        return found

    async def settle(self, conditions: Sequence[Condition], about: Iterable[str] = ()) -> int:
        """Raise and resolve alerts by name: those of `conditions`, and those in `about` that hold no longer."""
        wanted = {*about, *(condition.alert for condition in conditions)}
        if wanted:
            await self._view_shows()
        known = await read_alerts(self._pool, alerts=wanted) if wanted else []
        return (await self.tell(changes(conditions, known, self.clock())))[0]

    async def _view_shows(self) -> None:
        """Wait for the view to hold what was told here: an alert that it does not show yet could not be resolved, and nobody would ask again."""
        give_up = time.monotonic() + _VIEW_SECONDS
        while time.monotonic() < give_up:
            if int(await self._pool.fetchval(_PLACE) or 0) >= self._told:
                return
            await asyncio.sleep(0.02)

    async def tell(self, found: Sequence[Change]) -> tuple[int, dict[str, str]]:
        """Append the changes: the last position, and which tenants' the log refuses, and why. What is new goes to this process's log."""
        reached, refused = 0, {}
        for change, appended in zip(found, await self._append([c.event for c in found]) if found else [], strict=True):
            if appended.status is AppendStatus.REJECTED:
                refused[change.tenant] = appended.detail or "the log refuses the event"
                continue
            reached = max(reached, appended.position or 0)
            if appended.status is AppendStatus.APPENDED:
                self.changed.set()
                _say(change)
        self._told = max(self._told, reached)
        return reached, refused

    async def _failed(self, tenant: str, error: str) -> int:
        count = await alert_facts.failed(self._pool, tenant, error, pause=RETRY, tries=TRIES)
        _log.error("alerts_not_evaluated", tenant=tenant, reason=error, failures=count, parked=count >= TRIES)
        return await self._condition_of_failure(tenant, error)

    async def _condition_of_failure(self, tenant: str, error: str | None) -> int:
        """Whether a tenant's alerts cannot be worked out is an alert itself, of the operators'."""
        labels = {"subject": tenant}
        if error is None:
            return await self.settle([], [alert_id(EVALUATION_FAILED, SYSTEM_TENANT, labels)])
        summary = f"the alerts of the tenant {tenant} cannot be worked out: see `emberlog alerts failures`"
        return await self.settle([Condition(EVALUATION_FAILED, SYSTEM_TENANT, labels, summary)])


def _periods(day: str) -> dict[str, str]:
    return {window: period_of(window, day) for window in ("day", "month")}


def _day(at: int | None) -> str | None:
    return None if at is None else datetime.fromtimestamp(at, UTC).date().isoformat()


def _say(change: Change) -> None:
    data = change.data
    if isinstance(data, AlertRaised):
        say = _log.error if data.severity == "critical" else _log.warning
        say("alert_raised", alert=data.alert, kind=data.kind, tenant=change.tenant, summary=data.summary)
    else:
        _log.info("alert_resolved", alert=data.alert, tenant=change.tenant, reason=data.reason)
