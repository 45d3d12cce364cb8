"""Rate limits of tenants, keys, agents and threads: folded from their events, and the rules for setting them."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import msgspec

from domain.decision import Decision
from domain.errors import GatewayError
from domain.events import EventData, RateLimitRemoved, RateLimitSet
from domain.problems import Problems
from domain.rate_buckets import MAX_PER_MINUTE

if TYPE_CHECKING:
    from domain.plane import ControlPlane

SCOPES = ("tenant", "key", "agent", "thread")
MAX_LIMITS = 10_000
"""Rate limits a tenant may have."""
MAX_SUBJECT = 512
_API_KEY = re.compile(r"[0-9a-f]{16}")

Limits = dict[tuple[str, str | None], RateLimitSet]


class Bucket(msgspec.Struct, frozen=True, gc=False):
    """A bucket that a request of a tenant draws on. `unit` is `requests` or `tokens`, `limit` a number of them a minute."""

    name: str
    scope: str
    unit: str
    limit: int


def in_order(limits: Limits) -> list[RateLimitSet]:
    """By scope as `SCOPES` has them, the one for each subject that has none of its own first."""
    return sorted(limits.values(), key=lambda limit: (SCOPES.index(limit.scope), limit.subject or ""))


class RateLimits:
    """The rate limits of every tenant, by (scope, subject). `version` grows with every change."""

    def __init__(self) -> None:
        self.version = 0
        self._tenants: dict[str, Limits] = {}

    def of(self, tenant: str) -> Limits | None:
        """The tenant's, not to be changed; None where it has none."""
        return self._tenants.get(tenant)

    def apply(self, tenant: str, data: EventData) -> None:
        """Fold one event of the tenant."""
        if not isinstance(data, RateLimitSet | RateLimitRemoved):
            return
        self.version += 1
        limits = self._tenants.setdefault(tenant, {})
        if isinstance(data, RateLimitSet):
            limits[data.scope, data.subject] = data
        else:
            limits.pop((data.scope, data.subject), None)
        if not limits:
            del self._tenants[tenant]


def buckets_of(limits: Limits, tenant: str, key: str, agent: str, thread: str | None) -> list[Bucket]:
    """The buckets that a request draws on.

    A key, agent or thread with a limit of its own draws on that alone, else on what is set for each one that has none. Every subject has
    a bucket of its own in any case.
    """
    found: list[Bucket] = []
    for scope, subject in (("tenant", None), ("key", key), ("agent", agent), ("thread", thread)):
        if scope != "tenant" and subject is None:
            continue
        limit = limits.get((scope, subject))
        if limit is None:
            limit = limits.get((scope, None))
            if limit is None:
                continue
        if limit.requests_per_minute is not None:
            name = f"{{{tenant}}}{scope}/requests/{subject or ''}"
            found.append(Bucket(name, scope, "requests", limit.requests_per_minute))
        if limit.tokens_per_minute is not None:
            name = f"{{{tenant}}}{scope}/tokens/{subject or ''}"
            found.append(Bucket(name, scope, "tokens", limit.tokens_per_minute))
    return found


def decide_set_rate_limit(
    plane: ControlPlane,
    tenant: str,
    *,
    scope: str,
    subject: str | None = None,
    requests_per_minute: int | None = None,
    tokens_per_minute: int | None = None,
    operator: bool,
    actor: str,
) -> list[Decision]:
    """A limit from now on, instead of the one that (scope, subject) had. `subject` None: each one that has none of its own.

    Raises `invalid_config`, `not_found` (no such tenant), `forbidden` (the tenant's own limit is the operators' to set),
    `resource_constraint`.
    """
    problems = Problems()
    _check_scope(problems, scope, subject)
    for field, figure in (("requests_per_minute", requests_per_minute), ("tokens_per_minute", tokens_per_minute)):
        if figure is not None and not (type(figure) is int and 1 <= figure <= MAX_PER_MINUTE):
            problems.add(field, f"{str(figure)[:40]} is no limit: expected a whole number from 1 to {MAX_PER_MINUTE}")
    if requests_per_minute is None and tokens_per_minute is None:
        problems.add("requests_per_minute", "neither it nor tokens_per_minute is given: give one or both")
    _check_tenant(plane, tenant, scope, operator)
    if scope == "key" and subject is not None and _API_KEY.fullmatch(subject):
        key = plane.directory.keys.get(subject)
        if key is None or key.tenant != tenant:
            problems.add("subject", f"tenant {tenant} has no key {subject}")
    problems.check("the rate limit")
    limits = plane.rate_limits.of(tenant) or {}
    data = RateLimitSet(
        scope=scope,
        subject=subject,
        requests_per_minute=requests_per_minute,
        tokens_per_minute=tokens_per_minute,
        actor=actor,
    )
    current = limits.get((scope, subject))
    if current is not None and msgspec.structs.replace(data, actor=current.actor) == current:
        return []
    if current is None and len(limits) >= MAX_LIMITS:
        raise GatewayError(
            "resource_constraint", f"the tenant has {MAX_LIMITS} rate limits, the most there can be: remove some first"
        )
    return [Decision(tenant, f"tenant/{tenant}", data)]


def decide_remove_rate_limit(
    plane: ControlPlane, tenant: str, *, scope: str, subject: str | None = None, operator: bool, actor: str
) -> list[Decision]:
    """No limit of its own any more; where there is none, nothing. Raises `invalid_config`, `not_found` (no such tenant), `forbidden`."""
    problems = Problems()
    _check_scope(problems, scope, subject)
    problems.check("the rate limit")
    _check_tenant(plane, tenant, scope, operator)
    if (scope, subject) not in (plane.rate_limits.of(tenant) or {}):
        return []
    return [Decision(tenant, f"tenant/{tenant}", RateLimitRemoved(scope=scope, subject=subject, actor=actor))]


def _check_scope(problems: Problems, scope: str, subject: str | None) -> None:
    if scope not in SCOPES:
        problems.add("scope", f"{scope[:40]!r} is none of {', '.join(SCOPES)}")
    if subject is None:
        return
    if scope == "tenant":
        problems.add("subject", "a limit of the tenant has none: leave it out")
    elif not 1 <= len(subject) <= MAX_SUBJECT:
        problems.add("subject", f"has {len(subject)} characters: expected 1 to {MAX_SUBJECT}")
    elif "\0" in subject or any(0xD800 <= ord(c) < 0xE000 for c in subject):
        problems.add("subject", "holds a NUL character or half of a surrogate pair, which no name may")


def _check_tenant(plane: ControlPlane, tenant: str, scope: str, operator: bool) -> None:
    directory = plane.directory
    if tenant not in directory.tenants or tenant in directory.shredded:
        raise GatewayError("not_found", f"there is no tenant {tenant[:63]!r}", details={"field": "tenant"})
    if scope == "tenant" and not operator:
        raise GatewayError(
            "forbidden",
            "the limit of the tenant is set by operators: set one of keys, agents or threads",
            details={"field": "scope"},
        )
