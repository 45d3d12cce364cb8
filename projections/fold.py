"""Folding a range of the log into a table: checked, set-wise, in the caller's transaction."""

from __future__ import annotations

from datetime import datetime

from domain.upcasters import UnknownSchema
from projections.projection import EVENTS, GapInLog, Projection
from projections.source import STAGED, Connection, Read, stage
from projections.statements import statement

_CHECK = statement("projections.sql", "check")


async def fold_range(
    connection: Connection,
    projection: Projection,
    table: str,
    after: int,
    upto: int,
    read: Read | None = None,
    *,
    bulk: bool = False,
) -> datetime:
    """Fold the events in (after, upto] into `table`; returns the time of the last. Within the caller's transaction.

    What the log's table does not hold (it is archived) or holds in an old shape is brought by `read`. `bulk` computes the batch's
    delta apart, which may run in parallel. Raises `GapInLog`, `UnknownSchema`, and whatever a statement raises.
    """
    found = await connection.fetchrow(_CHECK, after, upto, projection.types, projection.schemas)
    assert found is not None
    if found["unknown"] is not None:
        raise UnknownSchema(
            f"the event at position {found['unknown']} has a schema version this build does not know: "
            "run the build that wrote it, or a newer one"
        )
    events, recorded_at = EVENTS, found["recorded_at"]
    if found["events"] != upto - after or found["outdated"]:
        if read is None:
            raise GapInLog(f"positions {after + 1} to {upto} hold {found['events']} events, expected {upto - after}")
        events, recorded_at = STAGED, await stage(connection, projection, read, after, upto)
    delta = projection.delta_sql(events)
    if bulk:
        # A statement that writes to a view's table never runs in parallel; one that makes a table from a selection does.
        await connection.execute(f"CREATE TEMP TABLE view_delta ON COMMIT DROP AS {delta}", after, upto)
        await connection.execute(projection.merge_sql(table, "pg_temp.view_delta"))
        await connection.execute("DROP TABLE pg_temp.view_delta")
    else:
        await connection.execute(projection.merge_sql(table, f"({delta})"), after, upto)
    assert isinstance(recorded_at, datetime)
    return recorded_at
