"""Alerts, and the webhooks that they and other events are delivered to."""

from __future__ import annotations

from domain.events.base import SYSTEM_STREAM, TENANT_STREAMS, EventData

_ANY = (*TENANT_STREAMS, SYSTEM_STREAM)


class AlertRaised(EventData, frozen=True, gc=False, omit_defaults=True):
    """Something needs a person. `alert` is derived from what it is about (its kind, labels and window), so that it is raised once.

    `kind` is one of `quota_warning`, `quota_high`, `quota_exceeded`, `model_deprecated`, `price_unknown`, `failover`, `circuit_open`,
    `projection_lag`, `quota_drift`, `evaluation_failed`; `severity` `info`, `warning` or `critical`. `labels` name its subject. `episode`
    counts how often it was raised: what was resolved may come back.
    """

    TYPE = "alert.raised"
    STREAMS = _ANY

    alert: str
    kind: str
    severity: str
    summary: str
    at: int
    labels: dict[str, str] = {}
    used: int | None = None
    limit: int | None = None
    episode: int = 1


class AlertResolved(EventData, frozen=True, gc=False, omit_defaults=True):
    """What an alert was about is over: `reset` (a new window), `raised` (a higher limit), `removed`, `recovered`, or `closed` by `actor`.

    `episode` is that of the raising it ends.
    """

    TYPE = "alert.resolved"
    STREAMS = _ANY

    alert: str
    reason: str
    at: int
    actor: str | None = None
    episode: int = 1


class AlertAcknowledged(EventData, frozen=True, gc=False, omit_defaults=True):
    """A person has seen the alert."""

    TYPE = "alert.acknowledged"
    STREAMS = _ANY
    DECISION = True

    alert: str
    actor: str | None = None


class AlertSilenced(EventData, frozen=True, gc=False, omit_defaults=True):
    """The alert is not delivered until `until` (seconds since the epoch)."""

    TYPE = "alert.silenced"
    STREAMS = _ANY
    DECISION = True

    alert: str
    until: int
    actor: str | None = None


class WebhookCreated(EventData, frozen=True, gc=False, omit_defaults=True):
    """Events of `types` are sent to `url` from here on; `tenant` None: those of every tenant. The secret that signs them is kept apart, sealed."""

    TYPE = "webhook.created"
    STREAMS = _ANY
    DECISION = True

    webhook: str
    url: str
    types: list[str]
    tenant: str | None = None
    actor: str | None = None


class WebhookSecretRotated(EventData, frozen=True, gc=False, omit_defaults=True):
    """A webhook has a new secret; the one before signs beside it until `overlap_until` (seconds since the epoch)."""

    TYPE = "webhook.secret_rotated"
    STREAMS = _ANY
    DECISION = True

    webhook: str
    overlap_until: int
    actor: str | None = None


class WebhookDeleted(EventData, frozen=True, gc=False, omit_defaults=True):
    """Nothing is sent there any more."""

    TYPE = "webhook.deleted"
    STREAMS = _ANY
    DECISION = True

    webhook: str
    actor: str | None = None


class WebhookDeliveryFailed(EventData, frozen=True, gc=False, omit_defaults=True):
    """A delivery was given up after its last try and lies among the dead letters. `reason` says why, without the answer's body."""

    TYPE = "webhook.delivery_failed"
    STREAMS = _ANY

    webhook: str
    event: str
    attempts: int
    reason: str
    at: int
