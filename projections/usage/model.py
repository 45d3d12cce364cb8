"""What was done with one model in a span of time, from the usage view."""

from __future__ import annotations

from datetime import datetime
from typing import Any

import asyncpg

from projections.statements import statement
from projections.usage.latency import percentile

_SQL = statement("projections.usage", "model")
_PERCENTILES = (("p50", 0.5), ("p95", 0.95), ("p99", 0.99))


async def read_model_usage(
    connection: asyncpg.Connection[asyncpg.Record] | asyncpg.Pool[asyncpg.Record],
    model: str,
    since: datetime,
    until: datetime,
    tenant: str | None,
) -> dict[str, Any]:
    """Sums over [`since`, `until`), both at a minute's beginning: the counts of the usage view, and `latency_ms`

    {`mean`, `p50`, `p95`, `p99`, `max`} of the answered requests (None without any). `tenant` None: of all tenants.
    """
    row = await connection.fetchrow(_SQL, model, since, until, tenant)
    assert row is not None
    found = {
        name: int(value)
        for name, value in row.items()
        if name not in ("latency_bins", "latency_ms_sum", "latency_ms_max")
    }
    latency: dict[str, float | int | None] | None = None
    if found["requests"]:
        latency = {"mean": round(int(row["latency_ms_sum"]) / found["requests"], 1)}
        for name, fraction in _PERCENTILES:
            value = percentile(row["latency_bins"], row["latency_ms_max"], fraction)
            latency[name] = None if value is None else round(value, 1)
        latency["max"] = row["latency_ms_max"]
    return {**found, "latency_ms": latency}
