"""Alerts: what needs a person. Which conditions hold is worked out here, and which of them are news; both are pure functions.

An alert is named after what it is about (its kind, tenant and labels), so whoever finds it names it alike. It may come back: each time it
is raised is an episode, and the event of an episode is logged once however many processes find it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from hashlib import blake2b

import msgspec

from domain.decision import Decision
from domain.errors import GatewayError, invalid_request
from domain.events import (
    SYSTEM_STREAM,
    SYSTEM_TENANT,
    AlertAcknowledged,
    AlertRaised,
    AlertResolved,
    AlertSilenced,
)
from domain.facts import tenant_fact
from domain.ports.event_log import NewEvent
from domain.quotas import Quota, QuotaKey

QUOTA_WARNING, QUOTA_HIGH, QUOTA_EXCEEDED = "quota_warning", "quota_high", "quota_exceeded"
MODEL_DEPRECATED = "model_deprecated"
PRICE_UNKNOWN = "price_unknown"
FAILOVER = "failover"
CIRCUIT_OPEN = "circuit_open"
ENDPOINT_UNHEALTHY = "endpoint_unhealthy"
ENDPOINT_DRIFT = "endpoint_drift"
PROJECTION_LAG = "projection_lag"
QUOTA_DRIFT = "quota_drift"
EVALUATION_FAILED = "evaluation_failed"
SEVERITIES = {
    QUOTA_WARNING: "warning",
    QUOTA_HIGH: "warning",
    QUOTA_EXCEEDED: "critical",
    MODEL_DEPRECATED: "warning",
    PRICE_UNKNOWN: "warning",
    FAILOVER: "warning",
    CIRCUIT_OPEN: "critical",
    ENDPOINT_UNHEALTHY: "warning",
    ENDPOINT_DRIFT: "critical",
    PROJECTION_LAG: "critical",
    QUOTA_DRIFT: "critical",
    EVALUATION_FAILED: "critical",
}
"""Kind -> severity."""
QUOTA_KINDS = (QUOTA_WARNING, QUOTA_HIGH, QUOTA_EXCEEDED)
"""By rising level."""
WARNING_PERCENT, HIGH_PERCENT = 80, 90
"""More than this much of a limit."""
CLOSED_SECONDS = 3600
"""What a person has closed though it goes on is raised again after this long; of a quota, only when its limit has changed."""
MAX_SILENCE_SECONDS = 366 * 24 * 3600

Labels = Mapping[str, str]


class Condition(msgspec.Struct, frozen=True):
    """Something that is so now and needs a person. One that is not `news` keeps its alert open and raises none: a graver one says it."""

    kind: str
    tenant: str
    labels: Labels
    summary: str
    used: int | None = None
    limit: int | None = None
    news: bool = True

    @property
    def alert(self) -> str:
        """The id of its alert."""
        return alert_id(self.kind, self.tenant, self.labels)


class Alert(msgspec.Struct, frozen=True):
    """An alert as the view has it. Times are seconds since the epoch; `reason` and `resolved_at` are None while it is open.

    It is silenced while `silenced_until` has not come.
    """

    alert: str
    tenant: str
    kind: str
    severity: str
    summary: str
    labels: dict[str, str]
    episode: int
    raised_at: float
    used: int | None = None
    limit: int | None = None
    acknowledged_at: float | None = None
    acknowledged_by: str | None = None
    silenced_until: float | None = None
    silenced_by: str | None = None
    resolved_at: float | None = None
    reason: str | None = None
    resolved_by: str | None = None

    @property
    def open(self) -> bool:
        """Whether what it is about goes on."""
        return self.resolved_at is None

    def state(self, now: float) -> str:
        """`raised`, `acknowledged`, `silenced` or `resolved`."""
        if not self.open:
            return "resolved"
        if self.silenced_until is not None and self.silenced_until > now:
            return "silenced"
        return "raised" if self.acknowledged_at is None else "acknowledged"

    def delivered(self, now: float) -> bool:
        """Whether it is told to anybody: not while it is silenced, nor again once somebody has seen it."""
        return self.state(now) not in ("silenced", "acknowledged") and (
            self.open or self.silenced_until is None or self.silenced_until <= now
        )


class Change(msgspec.Struct, frozen=True):
    """An alert to raise or to resolve."""

    tenant: str
    data: AlertRaised | AlertResolved

    @property
    def event(self) -> NewEvent:
        """The event: logged once for each episode, whoever appends it."""
        return tenant_fact(
            self.tenant,
            alert_stream(self.tenant),
            self.data,
            f"{self.data.alert}/{self.data.episode}",
            self.data.episode,
        )


def alert_id(kind: str, tenant: str, labels: Labels) -> str:
    """32 hexadecimal digits, the same for the same kind, tenant and labels."""
    parts = [kind, tenant, *(f"{name}={labels[name]}" for name in sorted(labels))]
    return blake2b("\0".join(parts).encode(), digest_size=16, person=b"alert").hexdigest()


def alert_stream(tenant: str) -> str:
    """The stream of a tenant's alerts."""
    return SYSTEM_STREAM if tenant == SYSTEM_TENANT else f"tenant/{tenant}"


# -- what holds ---------------------------------------------------------------------------------------------------------


def quota_conditions(
    tenant: str, quotas: Mapping[QuotaKey, Quota], used: Mapping[QuotaKey, int], periods: Mapping[str, str]
) -> list[Condition]:
    """What is so of a tenant's quotas: the level that each has reached, and the levels below it, which are no news then.

    `periods` names the present day and month (`2026-11-21`, `2026-11`); `used` is what was used of each quota in its period.
    """
    found = []
    for key, quota in quotas.items():
        amount, period = used.get(key, 0), periods[key.window]
        labels = {"scope": key.scope, "unit": key.unit, "window": key.window, "period": period}
        if key.subject:
            labels["subject"] = key.subject
        for number, kind in enumerate(reached := levels(amount, quota.limit), 1):
            found.append(
                Condition(
                    kind, tenant, labels, _quota_summary(key, amount, quota.limit, period), amount, quota.limit,
                    news=number == len(reached),
                )
            )  # fmt: skip
    return found


def levels(used: int, limit: int) -> tuple[str, ...]:
    """The kinds of the levels that are reached: over 80 %, over 90 %, all of it. Of a quota of 0 none, until something was used."""
    if used <= 0:
        return ()
    if used >= limit:
        return QUOTA_KINDS
    if used * 100 > limit * HIGH_PERCENT:
        return QUOTA_KINDS[:2]
    return QUOTA_KINDS[:1] if used * 100 > limit * WARNING_PERCENT else ()


def deprecation_conditions(tenant: str, models: Mapping[str, str | None]) -> list[Condition]:
    """What is so of a tenant that has deprecated models: id -> the day on which each is removed, None where that is open."""
    return [
        Condition(
            MODEL_DEPRECATED,
            tenant,
            {"model": model},
            f"the model {model} is deprecated{f' and removed on {day}' if day else ''}: move to another",
        )
        for model, day in models.items()
    ]


def _quota_summary(key: QuotaKey, used: int, limit: int, period: str) -> str:
    whose = {"tenant": "", "model": f" of the model {key.subject}"}.get(key.scope, f" of the agent {key.subject}")
    what = "budget (nano-dollars)" if key.unit == "nano_usd" else f"quota of {key.unit}"
    share = f"{used * 100 // limit} %" if limit else "more than all"
    return f"{share} of the {what}{whose} for {period} is used: {used} of {limit}"


# -- what is news -------------------------------------------------------------------------------------------------------


def changes(
    conditions: Iterable[Condition],
    known: Sequence[Alert],
    now: float,
    *,
    quotas: Mapping[QuotaKey, Quota] | None = None,
    periods: Mapping[str, str] | None = None,
) -> list[Change]:
    """The alerts to raise and to resolve, where `conditions` is all that holds of what the alerts in `known` may be about.

    `quotas` and `periods` are those of the tenant, to say why an alert of a quota is over. `now` is seconds since the epoch.
    """
    holding = {condition.alert: condition for condition in conditions}
    alerts = {alert.alert: alert for alert in known}
    at = int(now * 1_000_000)
    found: list[Change] = []
    for name, alert in alerts.items():
        if alert.open and name not in holding:
            reason = _over(alert, quotas or {}, periods or {})
            resolved = AlertResolved(alert=name, reason=reason, at=at, episode=alert.episode)
            found.append(Change(alert.tenant, resolved))
    for name, condition in holding.items():
        before = alerts.get(name)
        if condition.news and (before is None or (not before.open and _again(condition, before, now))):
            raised = AlertRaised(
                alert=name,
                kind=condition.kind,
                severity=SEVERITIES[condition.kind],
                summary=condition.summary,
                at=at,
                labels=dict(condition.labels),
                used=condition.used,
                limit=condition.limit,
                episode=1 if before is None else before.episode + 1,
            )
            found.append(Change(condition.tenant, raised))
    return found


def _again(condition: Condition, before: Alert, now: float) -> bool:
    if before.reason != "closed":
        return True
    if condition.kind in QUOTA_KINDS:
        return condition.limit != before.limit
    return before.resolved_at is not None and now - before.resolved_at > CLOSED_SECONDS


def _over(alert: Alert, quotas: Mapping[QuotaKey, Quota], periods: Mapping[str, str]) -> str:
    if alert.kind not in QUOTA_KINDS:
        return "recovered"
    labels = alert.labels
    if periods.get(labels.get("window", "")) != labels.get("period"):
        return "reset"
    quota = quotas.get(quota_of(labels))
    if quota is None:
        return "removed"
    return "raised" if alert.limit is not None and quota.limit > alert.limit else "recovered"


def quota_of(labels: Labels) -> QuotaKey:
    """The quota that the alert with these labels is about."""
    return QuotaKey(*(labels.get(name, "") for name in ("scope", "subject", "unit", "window")))


# -- what people do -----------------------------------------------------------------------------------------------------


def decide_acknowledge(alert: Alert, actor: str) -> list[Decision]:
    """Say that a person has seen the alert; nothing where somebody has. Raises `resource_constraint` where it is resolved."""
    _require_open(alert)
    if alert.acknowledged_at is not None:
        return []
    return [_decision(alert, AlertAcknowledged(alert=alert.alert, actor=actor))]


def decide_silence(alert: Alert, until: int, now: float, actor: str) -> list[Decision]:
    """Deliver the alert to nobody until then (seconds since the epoch); a time that has passed ends the silence.

    Raises `invalid_request`, and `resource_constraint` where the alert is resolved.
    """
    if until > now + MAX_SILENCE_SECONDS:
        raise invalid_request("an alert is silenced for a year at most: give an earlier `until`", "until")
    _require_open(alert)
    silenced = alert.silenced_until is not None and alert.silenced_until > now
    if alert.silenced_until == until or (until <= now and not silenced):
        return []
    return [_decision(alert, AlertSilenced(alert=alert.alert, until=until, actor=actor))]


def close(alert: Alert, now: float, actor: str) -> NewEvent | None:
    """Resolve the alert by hand: the event, None where it is resolved."""
    if not alert.open:
        return None
    return Change(
        alert.tenant,
        AlertResolved(alert=alert.alert, reason="closed", at=int(now * 1_000_000), actor=actor, episode=alert.episode),
    ).event


def _require_open(alert: Alert) -> None:
    if not alert.open:
        raise GatewayError(
            "resource_constraint",
            f"the alert {alert.alert} is resolved: there is nothing to do",
            details={"field": "alert"},
        )


def _decision(alert: Alert, data: AlertAcknowledged | AlertSilenced) -> Decision:
    return Decision(alert.tenant, alert_stream(alert.tenant), data)
