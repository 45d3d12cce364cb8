"""Reading the alerts view."""

from __future__ import annotations

from collections.abc import Iterable

import asyncpg
import msgspec

from domain.alerts import Alert
from projections.statements import statement

_QUERY = statement("projections.alerts", "query")
_OPEN = "FROM projections.alerts WHERE raised_position IS NOT NULL AND resolved_position IS NULL"


async def read_alerts(
    database: asyncpg.Connection[asyncpg.Record] | asyncpg.Pool[asyncpg.Record],
    *,
    tenants: Iterable[str] | None = None,
    kinds: Iterable[str] | None = None,
    still_open: bool | None = None,
    alerts: Iterable[str] | None = None,
    limit: int | None = None,
) -> list[Alert]:
    """The alerts that pass every filter which is given, the newest first."""
    lists = [None if names is None else sorted(set(names)) for names in (tenants, kinds, alerts)]
    rows = await database.fetch(_QUERY, lists[0], lists[1], still_open, lists[2], limit)
    return [_alert(row) for row in rows]


async def count_open(database: asyncpg.Connection[asyncpg.Record] | asyncpg.Pool[asyncpg.Record]) -> dict[str, int]:
    """How many alerts of each kind are open."""
    rows = await database.fetch(f"SELECT kind, count(*) AS n {_OPEN} GROUP BY kind")
    return {row["kind"]: row["n"] for row in rows}


async def tenants_with_open(
    database: asyncpg.Connection[asyncpg.Record] | asyncpg.Pool[asyncpg.Record], kinds: Iterable[str]
) -> set[str]:
    """The tenants of which alerts of these kinds are open."""
    rows = await database.fetch(f"SELECT DISTINCT tenant {_OPEN} AND kind = ANY ($1)", list(kinds))
    return {row["tenant"] for row in rows}


def _alert(row: asyncpg.Record) -> Alert:
    fields = dict(row)
    fields["labels"] = msgspec.json.decode(fields["labels"])
    return msgspec.convert(fields, Alert)
