"""Reading the usage view."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from typing import Any

import asyncpg
import msgspec

from projections.statements import statement
from projections.usage.latency import percentile

GRAINS = {"minute": 60, "hour": 3600, "day": 86400}
"""Name of a grain -> seconds."""
COUNTS = (
    "requests", "failed", "cancelled", "late", "abandoned", "reembedded", "inputs", "cached_inputs", "tokens", "billed_tokens",
    "nano_usd", "unpriced", "provider_nano_usd", "provider_unpriced",
)  # fmt: skip
"""The columns of a row that add up."""

_ROWS_AT_ONCE = 100
"""Rows made ready between two turns of the loop."""
_QUERY = statement("projections.usage", "query")
_LIVE = "SELECT position, recorded_at FROM projections.cursors WHERE name = 'usage' AND state = 'live'"


class UsageReport(msgspec.Struct, frozen=True):
    """Rows as of `position`, whose event was recorded at `time` (ISO 8601, UTC; None for an empty log).

    A row has `bucket` (its beginning), `grain`, `tenant`, `agent`, `model`, `provider` (None where none was called), `COUNTS`, and of the
    answered requests `latency_ms` {`mean`, `p50`, `p95`, `p99`, `max`} in milliseconds (None without any).
    """

    rows: list[dict[str, Any]]
    position: int
    time: str | None


async def read_usage(
    connection: asyncpg.Connection[asyncpg.Record] | asyncpg.Pool[asyncpg.Record],
    *,
    grain: str = "day",
    tenant: str | None = None,
    since: datetime | None = None,
    until: datetime | None = None,
    agent: str | None = None,
    limit: int | None = None,
) -> UsageReport:
    """The usage per bucket, tenant, agent, model and provider, from the bucket that holds `since`, before `until`; `limit` rows at most."""
    sql = _QUERY.replace("{table}", "projections.usage").replace("{standing}", _LIVE)
    return await _report(await connection.fetch(sql, GRAINS[grain], tenant, since, until, agent, limit), grain)


async def read_usage_as_of(
    connection: asyncpg.Connection[asyncpg.Record],
    table: str,
    position: int,
    recorded_at: datetime | None,
    *,
    grain: str = "day",
    tenant: str | None = None,
    since: datetime | None = None,
    until: datetime | None = None,
) -> UsageReport:
    """The same of a view folded up to `position`, which stands in `table` (see `projections.fresh.fold_fresh`)."""
    sql = _QUERY.replace("{table}", table).replace(
        "{standing}", "SELECT $7::bigint AS position, $8::timestamptz AS recorded_at"
    )
    where = (GRAINS[grain], tenant, since, until, None, None, position, recorded_at)
    return await _report(await connection.fetch(sql, *where), grain)


async def _report(rows: list[asyncpg.Record], grain: str) -> UsageReport:
    if not rows:
        return UsageReport([], 0, None)
    found = []
    for number, row in enumerate(rows, 1):
        if row["bucket"] is not None:
            found.append(_row(row, grain))
        if number % _ROWS_AT_ONCE == 0:
            await asyncio.sleep(0)
    return UsageReport(found, rows[0]["position"], utc_text(rows[0]["recorded_at"]))


def utc_text(time: datetime | None) -> str | None:
    """ISO 8601 in UTC, with a Z."""
    return None if time is None else time.astimezone(UTC).isoformat().replace("+00:00", "Z")


def _row(row: asyncpg.Record, grain: str) -> dict[str, Any]:
    requests, largest, bins = row["requests"], row["latency_ms_max"], row["latency_bins"]
    latency: dict[str, float | int | None] | None = None
    if requests:
        latency = {"mean": round(row["latency_ms_sum"] / requests, 1)}
        for name, fraction in (("p50", 0.5), ("p95", 0.95), ("p99", 0.99)):
            value = percentile(bins, largest, fraction)
            latency[name] = None if value is None else round(value, 1)
        latency["max"] = largest
    return {
        "bucket": utc_text(row["bucket"]),
        "grain": grain,
        **{name: row[name] for name in ("tenant", "agent", "model")},
        "provider": row["provider"] or None,
        **{name: row[name] for name in COUNTS},
        "latency_ms": latency,
    }
