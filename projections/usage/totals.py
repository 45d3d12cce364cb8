"""What a tenant used in a span of time, in all, by model and by agent: from the usage view."""

from __future__ import annotations

from datetime import datetime
from typing import Any

import asyncpg
import msgspec

from projections.statements import statement
from projections.usage.query import GRAINS

SUMS = ("requests", "failed", "tokens", "billed_tokens", "nano_usd", "unpriced")
_SQL = statement("projections.usage", "totals")
_ALL, _MODEL = 3, 1


class Totals(msgspec.Struct, frozen=True):
    """`SUMS` in all, by model, and by agent, those that cost most first."""

    total: dict[str, int]
    by_model: dict[str, dict[str, int]]
    by_agent: dict[str, dict[str, int]]


async def read_totals(
    connection: asyncpg.Connection[asyncpg.Record] | asyncpg.Pool[asyncpg.Record],
    tenant: str,
    grain: str,
    since: datetime,
    until: datetime,
    *,
    model: str | None = None,
    most: int = 2000,
) -> Totals:
    """From the bucket that begins at `since` to before `until`; at most `most` models and agents together."""
    rows = await connection.fetch(_SQL, GRAINS[grain], tenant, since, until, model, most + 1)
    total: dict[str, int] = {}
    models: dict[str, dict[str, int]] = {}
    agents: dict[str, dict[str, int]] = {}
    for row in rows:
        sums: dict[str, Any] = {name: row[name] for name in SUMS}
        if row["grouped"] == _ALL:
            total = sums
        elif row["grouped"] == _MODEL:
            models[row["model"]] = sums
        else:
            agents[row["agent"]] = sums
    return Totals(total, models, agents)
