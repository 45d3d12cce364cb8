"""Reading the cost view."""

from __future__ import annotations

import asyncio
from collections.abc import Collection
from datetime import datetime
from typing import Any

import asyncpg
import msgspec

from projections.statements import statement
from projections.usage.query import utc_text

GRAINS = ("hour", "day", "month")
GROUPS = ("tenant", "agent", "model", "provider")
SUMS = (
    "requests", "tokens", "billed_tokens", "characters", "nano_usd", "unpriced", "provider_nano_usd", "provider_unpriced",
)  # fmt: skip
"""The columns of a row that add up."""

_ROWS_AT_ONCE = 100
"""Rows made ready between two turns of the loop."""
_SQL = statement("projections.cost", "query")


class CostReport(msgspec.Struct, frozen=True):
    """Rows as of `position`, whose event was recorded at `time` (ISO 8601, UTC; None for an empty log).

    A row has `bucket` (its beginning; None over all), `GROUPS` (None over all, or for a provider where none was called) and `SUMS`.
    """

    rows: list[dict[str, Any]]
    position: int
    time: str | None


async def read_costs(
    connection: asyncpg.Connection[asyncpg.Record] | asyncpg.Pool[asyncpg.Record],
    *,
    grain: str = "day",
    by: Collection[str] = ("bucket", *GROUPS),
    tenant: str | None = None,
    since: datetime | None = None,
    until: datetime | None = None,
    agent: str | None = None,
    model: str | None = None,
    provider: str | None = None,
    limit: int | None = None,
) -> CostReport:
    """Costs from the bucket that holds `since`, before `until`, summed over what is not in `by`; at most `limit` rows."""
    found = await connection.fetch(_SQL, grain, tenant, since, until, agent, model, provider, list(by), limit)
    if not found:
        return CostReport([], 0, None)
    rows = []
    for number, row in enumerate(found, 1):
        if row["requests"] is not None:
            names = {name: row[name] or None for name in GROUPS}
            rows.append({"bucket": utc_text(row["bucket"]), **names, **{name: row[name] for name in SUMS}})
        if number % _ROWS_AT_ONCE == 0:
            await asyncio.sleep(0)
    return CostReport(rows, found[0]["position"], utc_text(found[0]["recorded_at"]))
