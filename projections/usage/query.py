"""Reading the usage view."""

from __future__ import annotations

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

_QUERY = statement("projections.usage", "query")


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
) -> UsageReport:
    """The usage per bucket, tenant, agent, model and provider, from the bucket that holds `since`, before `until`."""
    rows = await connection.fetch(_QUERY, GRAINS[grain], tenant, since, until)
    if not rows:
        return UsageReport([], 0, None)
    found = [_row(r, grain) for r in rows if r["bucket"] is not None]
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
