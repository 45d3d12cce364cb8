"""Quotas and budgets: what each tenant may use in a calendar window. Folded from its events, and decided on."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import msgspec

from domain.calendar import WINDOWS
from domain.decision import Decision
from domain.errors import GatewayError
from domain.events import AgentRegistered, EventData, QuotaRemoved, QuotaSet
from domain.problems import Problems

if TYPE_CHECKING:
    from domain.plane import ControlPlane

SCOPES = ("tenant", "model", "agent")
UNITS = ("tokens", "requests", "nano_usd")
OWN = "agent_own"
"""The scope of the monthly budget that an agent states among its preferences; it binds beside one that an admin has set."""
MAX_LIMIT = 10**18
"""Sums of used and reserved amounts stay within the database's 64 bits."""


class QuotaKey(msgspec.Struct, frozen=True, order=True):
    """What there is one quota for: a tenant, a model or an agent of it (`subject`, '' for the tenant), a unit and a window."""

    scope: str
    subject: str
    unit: str
    window: str


class Quota(msgspec.Struct, frozen=True):
    """At most `limit` of its unit in each window. A hard one refuses what would exceed it. It holds since the event at `position`.

    Since the event at `since` there is a hard one, or a soft one, without a gap: what was used by then is counted from the log.
    One that an `operator` has set is changed by operators only.
    """

    limit: int
    hard: bool
    position: int
    actor: str | None = None
    operator: bool = False
    since: int = 0


class Quotas:
    """The quotas of every tenant. `version` grows with every change."""

    def __init__(self) -> None:
        self.version = 0
        self.changes: dict[str, int] = {}
        """Tenant -> the version at which its quotas changed last."""
        self._tenants: dict[str, dict[QuotaKey, Quota]] = {}
        self._subjects: dict[tuple[str, str, str], dict[QuotaKey, Quota]] = {}

    def of(self, tenant: str) -> dict[QuotaKey, Quota]:
        """The tenant's, with the budgets that its agents have stated themselves; not to be changed."""
        return self._tenants.get(tenant, {})

    def tenants(self) -> list[str]:
        """The tenants that have any."""
        return list(self._tenants)

    def binding(self, tenant: str, agent: str, model: str) -> Iterator[tuple[QuotaKey, Quota]]:
        """Those that a request of this agent to this model draws on."""
        for scope, subject in (("tenant", ""), ("model", model), ("agent", agent), (OWN, agent)):
            yield from self._subjects.get((tenant, scope, subject), {}).items()

    def apply(self, tenant: str, data: EventData, position: int) -> None:
        """Fold one event of the tenant."""
        match data:
            case QuotaSet():
                key = QuotaKey(data.scope, data.subject or "", data.unit, data.window)
                self._put(tenant, key, Quota(data.limit, data.hard, position, data.actor, data.operator))
            case QuotaRemoved():
                self._put(tenant, QuotaKey(data.scope, data.subject or "", data.unit, data.window), None)
            case AgentRegistered():
                key = QuotaKey(OWN, data.agent, "nano_usd", "month")
                limit = data.preferences.monthly_budget_nano_usd
                known = self.of(tenant).get(key)
                if limit != (None if known is None else known.limit):
                    self._put(
                        tenant, key, None if limit is None else Quota(limit, True, position, f"agent:{data.agent}")
                    )
            case _:
                return

    def _put(self, tenant: str, key: QuotaKey, quota: Quota | None) -> None:
        self.version += 1
        self.changes[tenant] = self.version
        quotas = self._tenants.setdefault(tenant, {})
        subject = self._subjects.setdefault((tenant, key.scope, key.subject), {})
        if quota is not None:
            known = quotas.get(key)
            since = quota.position if known is None or (quota.hard and not known.hard) else known.since
            quotas[key] = subject[key] = msgspec.structs.replace(quota, since=since)
            return
        quotas.pop(key, None)
        subject.pop(key, None)
        if not quotas:
            del self._tenants[tenant]
        if not subject:
            del self._subjects[tenant, key.scope, key.subject]


def decide_set_quota(
    plane: ControlPlane,
    tenant: str,
    *,
    scope: str,
    unit: str,
    window: str,
    limit: float,
    subject: str | None = None,
    hard: bool = True,
    operator: bool = False,
    actor: str | None = None,
) -> list[Decision]:
    """Set a quota, as an `operator` or as the tenant's admin, who changes none of the operators'. Raises `forbidden` for that, `not_found` for the tenant, `invalid_config` naming every field that is wrong. Nothing where it is so already."""
    problems = Problems()
    found = _check_key(plane, tenant, scope, unit, window, subject, problems)
    # A float would be a figure that the sum of integers cannot be compared with exactly; NaN compares with nothing.
    if isinstance(limit, bool) or not isinstance(limit, int) or not 0 <= limit <= MAX_LIMIT:
        problems.add("limit", f"expected a whole number from 0 to {MAX_LIMIT} (10^18)")
    problems.check("the quota")
    assert isinstance(limit, int)
    key = QuotaKey(scope, found or "", unit, window)
    known = plane.quotas.of(tenant).get(key)
    if known is not None and (known.limit, known.hard) == (limit, hard) and known.operator >= operator:
        return []
    _check_may(known, operator)
    data = QuotaSet(
        scope=scope, unit=unit, window=window, limit=limit, subject=found, hard=hard, operator=operator, actor=actor
    )
    return [Decision(tenant, f"tenant/{tenant}", data)]


def decide_remove_quota(
    plane: ControlPlane,
    tenant: str,
    *,
    scope: str,
    unit: str,
    window: str,
    subject: str | None = None,
    operator: bool = False,
    actor: str | None = None,
) -> list[Decision]:
    """Take a quota away. Raises as `decide_set_quota` does; nothing where there is none.

    A quota of a model or agent that is unknown (any more) can be removed all the same.
    """
    problems = Problems()
    _check_words(scope, unit, window, subject, problems)
    _check_tenant(plane, tenant)
    problems.check("the quota")
    if scope == "model" and subject is not None:
        subject = resolve_model(plane, subject) or subject
    known = plane.quotas.of(tenant).get(QuotaKey(scope, subject or "", unit, window))
    if known is None:
        return []
    _check_may(known, operator)
    data = QuotaRemoved(scope=scope, unit=unit, window=window, subject=subject, actor=actor)
    return [Decision(tenant, f"tenant/{tenant}", data)]


def _check_may(known: Quota | None, operator: bool) -> None:
    if known is not None and known.operator and not operator:
        raise GatewayError(
            "forbidden",
            "an operator has set this quota: ask one to change it, or set another beside it (of a model, an agent, the other window)",
            details={"field": "limit"},
        )


def resolve_model(plane: ControlPlane, name: str) -> str | None:
    """The catalogue id of a model's id or alias; None where there is none."""
    if name in plane.models.models:
        return name
    return next((m.id for m in plane.models.models.values() if name in m.spec.aliases), None)


def _check_key(
    plane: ControlPlane, tenant: str, scope: str, unit: str, window: str, subject: str | None, problems: Problems
) -> str | None:
    """The subject as events name it."""
    _check_words(scope, unit, window, subject, problems)
    _check_tenant(plane, tenant)
    if not subject or scope == "tenant":
        return None
    if scope == "model":
        model = resolve_model(plane, subject)
        if model is None:
            problems.add("subject", f"there is no model {subject[:128]!r} in the catalogue")
        return model
    if scope == "agent" and (tenant, subject) not in plane.directory.agents:
        problems.add(
            "subject",
            f"the tenant has no agent {subject[:128]!r}: it must have registered, or be made (`emberlog agents set`)",
        )
    return subject


def _check_words(scope: str, unit: str, window: str, subject: str | None, problems: Problems) -> None:
    for field, value, known in (("scope", scope, SCOPES), ("unit", unit, UNITS), ("window", window, WINDOWS)):
        if value not in known:
            problems.add(field, f"is {str(value)[:40]!r}, expected one of {', '.join(known)}")
    if scope == "tenant" and subject is not None:
        problems.add("subject", "a quota of the whole tenant has none: leave it out")
    elif scope in ("model", "agent") and not subject:
        problems.add("subject", f"expected the {scope} that the quota is of")


def _check_tenant(plane: ControlPlane, tenant: str) -> None:
    directory = plane.directory
    if tenant not in directory.tenants or tenant in directory.shredded:
        raise GatewayError("not_found", f"there is no tenant {tenant[:63]!r}: see `emberlog tenants list`")
