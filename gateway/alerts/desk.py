"""What people do with alerts, for the management API and the commands alike. Reading them works them out first."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Sequence
from datetime import UTC, datetime

import msgspec

from adapters.postgres import alert_facts
from adapters.postgres.alert_facts import Failure
from adapters.postgres.pool import UNREACHABLE, Pool
from domain.alerts import SEVERITIES, Alert, alert_stream, close, decide_acknowledge, decide_silence
from domain.decision import Decision
from domain.errors import GatewayError, invalid_request
from domain.plane import ControlPlane
from domain.ports.event_log import Appended, LogUnavailable, NewEvent
from gateway.alerts.evaluator import Evaluator
from gateway.control import Written
from gateway.decisions import check_appended
from gateway.reads.turns import Turns
from gateway.service.refusals import log_error
from projections.alerts.query import read_alerts

STATES = ("raised", "acknowledged", "silenced", "resolved", "open")
"""What lists can be narrowed to; `open` is everything but `resolved`."""
MAX_LISTED = 10_000
ALL_SECONDS = 5.0
"""All tenants' alerts are worked out for a reader at most this often."""

Take = Callable[[str, Callable[[ControlPlane], list[Decision]]], Awaitable[Written]]
"""Takes a decision on a stream: `Control.run`, or `Call.decide` of a route."""


class AlertDocument(msgspec.Struct, frozen=True):
    """An alert. `used` and `limit` are those of its quota when it was raised. Times are ISO 8601, UTC; what has not happened is null."""

    id: str
    tenant: str
    kind: str
    severity: str
    state: str
    summary: str
    labels: dict[str, str]
    used: int | None
    limit: int | None
    episode: int
    raised_at: str
    acknowledged_at: str | None
    acknowledged_by: str | None
    silenced_until: str | None
    silenced_by: str | None
    resolved_at: str | None
    reason: str | None
    resolved_by: str | None


class FailureDocument(msgspec.Struct, frozen=True):
    """A tenant whose alerts cannot be worked out. Once it is `parked` it is tried again only when somebody says so."""

    tenant: str
    failures: int
    error: str
    failed_at: str
    retry_at: str
    parked: bool


class AlertDesk:
    """For one installation. `appear` waits until the alerts view shows a position, or for a moment."""

    def __init__(
        self,
        pool: Pool,
        evaluator: Evaluator,
        append: Callable[[Sequence[NewEvent]], Awaitable[list[Appended]]],
        appear: Callable[[int], Awaitable[None]],
    ) -> None:
        self._pool = pool
        self._evaluator = evaluator
        self._append = append
        self._appear = appear
        self._all_at = float("-inf")
        self._turns = Turns()

    async def alerts(
        self, tenant: str | None, *, state: str | None = None, kind: str | None = None, limit: int = MAX_LISTED
    ) -> list[AlertDocument]:
        """A tenant's alerts, or everybody's (None), the newest first.

        Raises `invalid_request`, `unavailable`, and `too_many_in_flight` to a tenant that would keep the others and the webhooks waiting.
        """
        if state is not None and state not in STATES:
            raise invalid_request(f"expected one of {', '.join(STATES)}", "state")
        if kind is not None and kind not in SEVERITIES:
            raise invalid_request(f"expected one of {', '.join(sorted(SEVERITIES))}", "kind")
        try:
            with self._turns.take(tenant):
                await self._evaluate(tenant)
                found = await read_alerts(
                    self._pool,
                    tenants=None if tenant is None else [tenant],
                    kinds=None if kind is None else [kind],
                    still_open=None if state is None else state != "resolved",
                    limit=limit,
                )
        except (LogUnavailable, *UNREACHABLE):
            raise log_error(LogUnavailable()) from None
        now = self._evaluator.clock()
        documents = [document(alert, now) for alert in found]
        return [d for d in documents if state in (None, "open", d.state)]

    async def find(self, tenant: str | None, alert: str) -> Alert:
        """An alert of the tenant, or of anybody (None). Raises `not_found`, `unavailable`."""
        try:
            found = await read_alerts(self._pool, tenants=None if tenant is None else [tenant], alerts=[alert])
        except UNREACHABLE:
            raise log_error(LogUnavailable()) from None
        if not found:
            raise GatewayError("not_found", f"there is no alert {alert[:63]!r}", details={"field": "alert"})
        return found[0]

    async def show(self, tenant: str | None, alert: str) -> AlertDocument:
        """The same, as lists show it."""
        return document(await self.find(tenant, alert), self._evaluator.clock())

    async def acknowledge(self, take: Take, tenant: str | None, alert: str, *, actor: str) -> AlertDocument:
        """Say that somebody has seen it. Raises `not_found`, `resource_constraint`."""
        found = await self.find(tenant, alert)
        return await self._taken(take, found, lambda _: decide_acknowledge(found, actor))

    async def silence(self, take: Take, tenant: str | None, alert: str, *, seconds: int, actor: str) -> AlertDocument:
        """Deliver it to nobody for so long; 0 ends a silence. Raises `not_found`, `invalid_request`, `resource_constraint`."""
        if seconds < 0:
            raise invalid_request("expected a time to come: seconds from now, or 0 to end the silence", "seconds")
        found, now = await self.find(tenant, alert), self._evaluator.clock()
        return await self._taken(take, found, lambda _: decide_silence(found, int(now) + seconds, now, actor))

    async def resolve(self, tenant: str | None, alert: str, *, actor: str) -> tuple[AlertDocument, int]:
        """Close it by hand; with the position of the event, 0 where it was resolved before. Raises `not_found`, `unavailable`.

        What goes on is raised again: an hour later, or, of a quota, when its limit has changed.
        """
        found = await self.find(tenant, alert)
        event = close(found, self._evaluator.clock(), actor)
        position = 0
        if event is not None:
            [appended] = await self._append([event])
            position = check_appended(appended, event.stream).position or 0
            await self._appear(position)
        return await self.show(tenant, alert), position

    async def failures(self) -> list[FailureDocument]:
        """The tenants whose alerts cannot be worked out."""
        try:
            return [_failure(f) for f in await alert_facts.failures(self._pool)]
        except UNREACHABLE:
            raise log_error(LogUnavailable()) from None

    async def retry(self, tenant: str | None) -> list[str]:
        """Try those that failed again now: one, or all of them (None); returns which. Raises `not_found`."""
        try:
            found = await alert_facts.retry(self._pool, tenant)
            if tenant is not None and not found:
                raise GatewayError(
                    "not_found", f"the alerts of {tenant[:63]!r} have not failed", details={"field": "tenant"}
                )
            await self._evaluator.evaluate(found)
        except (LogUnavailable, *UNREACHABLE):
            raise log_error(LogUnavailable()) from None
        return found

    async def _evaluate(self, tenant: str | None) -> None:
        if tenant is not None:
            await self._appear(await self._evaluator.evaluate_now(tenant))
        elif time.monotonic() - self._all_at > ALL_SECONDS:
            self._all_at = time.monotonic()
            await self._appear(await self._evaluator.evaluate_all())

    async def _taken(self, take: Take, alert: Alert, decide: Callable[[ControlPlane], list[Decision]]) -> AlertDocument:
        written = await take(alert_stream(alert.tenant), decide)
        if written.changed:
            await self._appear(written.position)
        return await self.show(alert.tenant, alert.alert)


def document(alert: Alert, now: float) -> AlertDocument:
    """The alert as lists show it at `now` (seconds since the epoch)."""
    return AlertDocument(
        id=alert.alert,
        tenant=alert.tenant,
        kind=alert.kind,
        severity=alert.severity,
        state=alert.state(now),
        summary=alert.summary,
        labels=alert.labels,
        used=alert.used,
        limit=alert.limit,
        episode=alert.episode,
        raised_at=_text(alert.raised_at),
        acknowledged_at=_time(alert.acknowledged_at),
        acknowledged_by=alert.acknowledged_by,
        silenced_until=_time(alert.silenced_until),
        silenced_by=alert.silenced_by,
        resolved_at=_time(alert.resolved_at),
        reason=alert.reason,
        resolved_by=alert.resolved_by,
    )


def _failure(failure: Failure) -> FailureDocument:
    return FailureDocument(
        failure.subject,
        failure.failures,
        failure.error,
        _text(failure.failed_at.timestamp()),
        _text(failure.retry_at.timestamp()),
        failure.parked,
    )


def _time(seconds: float | None) -> str | None:
    return None if seconds is None else _text(seconds)


def _text(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat().replace("+00:00", "Z")
