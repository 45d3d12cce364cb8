"""Quotas and rate limits: what a tenant, a model of it, an agent, a key or a thread may use."""

from __future__ import annotations

from domain.events.base import TENANT_STREAMS, EventData


class QuotaSet(EventData, frozen=True, gc=False, omit_defaults=True):
    """A quota holds from now on: at most `limit` of `unit` in each calendar `window` (UTC, or the tenant's time zone).

    `scope` is `tenant`, `model` or `agent`, `subject` the model or agent it is of (None for the tenant). `unit` is `tokens`, `requests` or
    `nano_usd` (a quota of money is called a budget), `window` `day` or `month`. A hard one refuses what would exceed it; a soft one does
    not refuse. There is one quota for each (scope, subject, unit, window): the latest statement holds. What an `operator` has set, nobody of
    the tenant changes.
    """

    TYPE = "quota.set"
    STREAMS = TENANT_STREAMS
    DECISION = True

    scope: str
    unit: str
    window: str
    limit: int
    subject: str | None = None
    hard: bool = True
    operator: bool = False
    actor: str | None = None


class QuotaRemoved(EventData, frozen=True, gc=False, omit_defaults=True):
    """A quota holds no longer."""

    TYPE = "quota.removed"
    STREAMS = TENANT_STREAMS
    DECISION = True

    scope: str
    unit: str
    window: str
    subject: str | None = None
    actor: str | None = None


class RateLimitSet(EventData, frozen=True, gc=False, omit_defaults=True):
    """A rate limit holds from now on, over all gateways together.

    `scope` is `tenant`, `key`, `agent` or `thread`; `subject` the one it is of, None for each one that has none of its own. None in either
    figure is no limit.
    """

    TYPE = "rate_limit.set"
    STREAMS = TENANT_STREAMS
    DECISION = True

    scope: str
    subject: str | None = None
    requests_per_minute: int | None = None
    tokens_per_minute: int | None = None
    actor: str | None = None


class RateLimitRemoved(EventData, frozen=True, gc=False, omit_defaults=True):
    """A rate limit holds no longer."""

    TYPE = "rate_limit.removed"
    STREAMS = TENANT_STREAMS
    DECISION = True

    scope: str
    subject: str | None = None
    actor: str | None = None
