"""What tenants have used of their quotas in the calendar windows that they are in, from the quota view."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import date

import asyncpg

from domain.alerts import WARNING_PERCENT
from domain.quotas import Quota, QuotaKey
from projections.statements import statement

_USED = statement("projections.alerts", "used")


async def read_used(
    database: asyncpg.Connection[asyncpg.Record] | asyncpg.Pool[asyncpg.Record],
    quotas: Mapping[str, Mapping[QuotaKey, Quota]],
    days: Mapping[str, str],
) -> dict[str, dict[QuotaKey, int]]:
    """By tenant the quotas of which enough was used to say so, and how much; `days` says which day it is for each tenant of `quotas`."""
    wanted = [(tenant, key, quota.limit) for tenant, keys in quotas.items() for key, quota in keys.items()]
    found: dict[str, dict[QuotaKey, int]] = {tenant: {} for tenant in quotas}
    if not wanted:
        return found
    rows = await database.fetch(
        _USED,
        [tenant for tenant, _, _ in wanted],
        [date.fromisoformat(days[tenant]) for tenant, _, _ in wanted],
        [key.scope for _, key, _ in wanted],
        [key.subject for _, key, _ in wanted],
        [key.unit for _, key, _ in wanted],
        [key.window for _, key, _ in wanted],
        [limit for _, _, limit in wanted],
        WARNING_PERCENT,
    )
    for row in rows:
        tenant, key, _ = wanted[row["number"] - 1]
        found[tenant][key] = row["amount"]
    return found
