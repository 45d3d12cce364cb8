"""Reading the quota view: how a tenant's quotas stand in their present windows."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime

import asyncpg
import msgspec

from domain.calendar import Days, period_of, resets_at
from domain.quotas import Quota, QuotaKey, Quotas
from projections.statements import statement

_QUERY = statement("projections.quota", "query")
LEVELS = ((10, 10, "exceeded"), (9, 10, "high"), (8, 10, "warning"))
"""From this share of the limit on (the last two: above it) a quota is in this state."""


class QuotaStanding(msgspec.Struct, frozen=True):
    """A quota and how it stands in `period`, which ends at `resets_at` (ISO 8601, UTC). `subject` is None for the whole tenant's.

    `used` is what was billed, `reserved` what the requests in flight may be; `state` is `ok`, or `warning`, `high` or `exceeded` where more
    than 80 %, more than 90 % or all of it is used; `within` is whether anything is left. `scope` `agent_own` is an agent's own statement.
    """

    id: str
    tenant: str
    scope: str
    subject: str | None
    unit: str
    window: str
    limit: int
    hard: bool
    used: int
    reserved: int
    period: str
    resets_at: str
    state: str
    within: bool


class QuotaReport(msgspec.Struct, frozen=True):
    """The quotas as of `position`, whose event was recorded at `time` (ISO 8601, UTC; None for an empty log)."""

    quotas: list[QuotaStanding]
    position: int
    time: str | None


def quota_id(key: QuotaKey) -> str:
    """What a quota is called among its tenant's: `tenant/tokens/day`, `model/text-embedding-3-small/requests/month`."""
    return "/".join(part for part in (key.scope, key.subject, key.unit, key.window) if part)


def state_of(used: int, limit: int) -> str:
    """See `QuotaStanding`."""
    for share, of, state in LEVELS:
        if used * of > limit * share or (state == "exceeded" and used >= limit):
            return state
    return "ok"


async def read_quotas(
    connection: asyncpg.Connection[asyncpg.Record] | asyncpg.Pool[asyncpg.Record],
    quotas: Quotas,
    tenant: str,
    zone: str,
    *,
    at: int,
    keys: Iterable[QuotaKey] | None = None,
) -> QuotaReport:
    """How the tenant's quotas stand at `at` (microseconds since the epoch), in the windows of its time zone, in the order of their keys.

    With `keys` these alone: its agents may have stated ten thousand budgets, and each costs a look.
    """
    day = Days().day(zone, at)
    keys = sorted(quotas.of(tenant) if keys is None else keys)
    periods = [period_of(key.window, day) for key in keys]
    rows = await connection.fetch(
        _QUERY, tenant, [k.scope for k in keys], [k.subject for k in keys], [k.unit for k in keys], periods
    )
    if not rows:
        nothing = [
            _standing(tenant, key, quotas.of(tenant)[key], 0, 0, p, zone) for key, p in zip(keys, periods, strict=True)
        ]
        return QuotaReport(nothing, 0, None)
    found = [
        _standing(tenant, key, quotas.of(tenant)[key], row["used"], row["reserved"], period, zone)
        for key, period, row in zip(keys, periods, rows, strict=True)
    ]
    return QuotaReport(found, rows[0]["position"], _text(rows[0]["recorded_at"]))


def _standing(
    tenant: str, key: QuotaKey, quota: Quota, used: int, reserved: int, period: str, zone: str
) -> QuotaStanding:
    return QuotaStanding(
        id=quota_id(key),
        tenant=tenant,
        scope=key.scope,
        subject=key.subject or None,
        unit=key.unit,
        window=key.window,
        limit=quota.limit,
        hard=quota.hard,
        used=used,
        reserved=reserved,
        period=period,
        resets_at=resets_at(zone, period),
        state=state_of(used, quota.limit),
        within=used < quota.limit,
    )


def _text(time: datetime | None) -> str | None:
    return None if time is None else time.astimezone(UTC).isoformat().replace("+00:00", "Z")
