"""Two tables of one view at one position: their digests, and the rows in which they differ."""

from __future__ import annotations

from datetime import datetime
from typing import Any

import msgspec

from projections.projection import Projection
from projections.source import Connection
from projections.statements import statement

SHOWN = 20
"""Differing rows that are named."""

_DIGEST, _DIFFERENCES, _FIRST_ROWS = (
    statement("projections.sql", name) for name in ("digest", "differences", "first_rows")
)


class Difference(msgspec.Struct, frozen=True):
    """A row in which a view is not what the log says. `key` names it; `columns` maps what differs to (the view's, the log's) value.

    `kind` is `missing` (the view lacks the row), `extra` (only the view has it) or `changed`.
    """

    key: dict[str, Any]
    kind: str
    columns: dict[str, tuple[Any, Any]]


async def digest(connection: Connection, projection: Projection, table: str, time: datetime | None) -> str:
    """SHA-256 (hex) that stands for the view in `table`, whatever the order of its rows; `time` is that of the newest event folded."""
    return str(await connection.fetchval(_DIGEST.replace("{rows}", projection.rows_sql(table)), time))


async def differences(
    connection: Connection, projection: Projection, view: str, truth: str, time: datetime | None
) -> tuple[int, list[Difference]]:
    """How many rows of the two tables differ, and the first `SHOWN` of them in the order of their keys."""
    places = {
        "{view}": projection.rows_sql(view),
        "{truth}": projection.rows_sql(truth),
        "{key}": ", ".join(projection.key),
    }
    sql = _DIFFERENCES
    for place, text in places.items():
        sql = sql.replace(place, text)
    rows = await connection.fetch(sql, time, SHOWN)
    return rows[0]["differing"] if rows else 0, [_difference(projection, row["view"], row["truth"]) for row in rows]


def _difference(projection: Projection, view: str | None, truth: str | None) -> Difference:
    here = {} if view is None else msgspec.json.decode(view)
    there = {} if truth is None else msgspec.json.decode(truth)
    kind = "missing" if view is None else "extra" if truth is None else "changed"
    return Difference(
        {column: (here or there)[column] for column in projection.key},
        kind,
        {
            column: (here.get(column), there.get(column))
            for column in (here or there)
            if column not in projection.key and here.get(column) != there.get(column)
        },
    )


async def first_rows(
    connection: Connection, projection: Projection, table: str, time: datetime | None, limit: int
) -> list[dict[str, Any]]:
    """The first rows of the view in `table`, in the order of their keys, as plain data."""
    sql = _FIRST_ROWS.replace("{rows}", projection.rows_sql(table)).replace("{key}", ", ".join(projection.key))
    return [msgspec.json.decode(row["row"]) for row in await connection.fetch(sql, time, limit)]
