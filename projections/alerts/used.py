"""What tenants have used in the calendar windows that they are in, from the quota view, added up as their quotas are."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import date

import asyncpg

from domain.quotas import OWN, QuotaKey
from projections.statements import statement

_USED = statement("projections.alerts", "used")
_UNITS = ("tokens", "requests", "nano_usd")


async def read_used(
    database: asyncpg.Connection[asyncpg.Record] | asyncpg.Pool[asyncpg.Record], days: Mapping[str, str]
) -> dict[str, dict[QuotaKey, int]]:
    """Tenant -> quota that there could be -> what was used of it in its present window; `days` says which day it is for each tenant."""
    rows = await database.fetch(_USED, list(days), [date.fromisoformat(day) for day in days.values()])
    found: dict[str, dict[QuotaKey, int]] = {tenant: {} for tenant in days}
    for row in rows:
        used = found[row["tenant"]]
        for window in ("day", "month"):
            for unit in _UNITS:
                amount = row[f"{window}_{unit}"]
                for scope, subject in (
                    ("tenant", ""), ("model", row["model"]), ("agent", row["agent"]), (OWN, row["agent"]),
                ):  # fmt: skip
                    key = QuotaKey(scope, subject, unit, window)
                    used[key] = used.get(key, 0) + amount
    return found
