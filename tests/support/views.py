"""Any view beside its plain fold: what the conformance suite and the rebuild scenarios ask of every projection alike."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Collection, Sequence
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Any
from uuid import UUID, uuid4

import msgspec

from projections import cursor
from projections.compare import digest
from projections.projection import Projection
from projections.requests import REQUESTS
from projections.runner import ALL, Runner
from projections.source import Read
from projections.usage import USAGE
from tests.support.alerting import plain_alerts
from tests.support.cataloguing import plain_model_catalog
from tests.support.costs import plain_cost
from tests.support.projecting import Connection, Recorded, Row, plain_requests, plain_threads, plain_usage
from tests.support.provider_health import plain_provider_health
from tests.support.quotas import plain_quota
from tests.support.tenanting import plain_agent_preferences, plain_tenant_models

LEASE = timedelta(seconds=60)
DEEP = (USAGE, REQUESTS)
"""The views that the machinery of owners, batches, rebuilds and parking is tried on, which is the same for all: one that halts and one that
parks. What rests on a view's own statements is asked of every view."""
PLAIN: dict[str, Callable[[Sequence[Recorded], Collection[int]], list[Row]]] = {
    "usage": plain_usage,
    "requests": plain_requests,
    "cost": plain_cost,
    "alerts": plain_alerts,
    "threads": plain_threads,
    "quota": plain_quota,
    "model_catalog": plain_model_catalog,
    "tenant_models": plain_tenant_models,
    "agent_preferences": plain_agent_preferences,
    "provider_health": plain_provider_health,
}
"""The name of a projection -> its plain fold of a log, but the events at some positions."""


@asynccontextmanager
async def running(dsn: str, *projections: Projection, **how: Any) -> AsyncIterator[Runner]:
    """A runner at work, of these projections or of all, none of which rests long."""
    brisk = [msgspec.structs.replace(p, rest=min(p.rest, 0.05)) for p in projections or ALL]
    runner = Runner(dsn, brisk, **{"poll_seconds": 0.02} | how)
    await runner.start()
    try:
        yield runner
    finally:
        await runner.stop()


def plain(projection: Projection, events: Sequence[Recorded], skip: Collection[int] = ()) -> list[Row]:
    """The rows that the view has after these events, the first at position 1, but those at `skip`."""
    return PLAIN[projection.name](events, skip)


async def rows_of(connection: Connection, projection: Projection, table: str | None = None) -> list[Row]:
    """The view's rows, as of the event that its live generation stands at, in the order of its key; or those of a table."""
    seen = await cursor.look(connection, projection)
    sql = projection.rows_sql(table or f"projections.{projection.name}")
    rows = [tuple(row) for row in await connection.fetch(sql, seen.recorded_at)]
    return sorted(rows, key=lambda row: row[: len(projection.key)])


async def text_of(connection: Connection, projection: Projection, table: str) -> list[str]:
    """A table's rows as Postgres writes them, in the order of the text: equal means equal byte for byte."""
    rows = await connection.fetch(f'SELECT v::text AS text FROM {table} v ORDER BY v::text COLLATE "C"')
    return [row["text"] for row in rows]


async def live_digest(connection: Connection, projection: Projection) -> str:
    """The digest of the view as it stands."""
    seen = await cursor.look(connection, projection)
    return await digest(connection, projection, projection.table_of(seen.generation), seen.recorded_at)


async def own(connection: Connection, projection: Projection, owner: UUID | None = None) -> int:
    """Become the owner of the live generation, whoever was; returns the fence."""
    seen = await cursor.look(connection, projection)
    await connection.execute(
        "UPDATE projections.cursors SET lease_until = '-infinity' WHERE name = $1 AND state = 'live'", projection.name
    )
    fence = await cursor.acquire(connection, projection, seen.generation, owner or uuid4(), LEASE)
    assert fence is not None
    return fence


async def fold_to(
    connection: Connection,
    projection: Projection,
    upto: int,
    batch: int = 1000,
    read: Read | None = None,
    *,
    bulk: bool = False,
) -> None:
    """Fold the live view up to a position as an owner would, in batches."""
    fence = await own(connection, projection)
    seen = await cursor.look(connection, projection)
    for start in range(seen.position, upto, batch):
        end = min(upto, start + batch)
        await cursor.fold(connection, projection, seen.generation, fence, start, end, LEASE, read, bulk=bulk)


async def make_poison(owner: Connection) -> None:
    """A table of positions at which `tasting` projections fail."""
    await owner.execute("""
        CREATE TABLE public.poison (position bigint PRIMARY KEY);
        CREATE FUNCTION public.taste(a bigint, b bigint) RETURNS boolean LANGUAGE plpgsql STABLE SECURITY DEFINER AS $$ BEGIN
            IF EXISTS (SELECT FROM public.poison p WHERE p.position > a AND p.position <= b) THEN
                RAISE 'cannot fold: "acme''s secret"';
            END IF;
            RETURN true;
        END $$;
    """)


def tasting(projection: Projection) -> Projection:
    """The projection, but that it cannot fold what is in the table of `make_poison`."""
    delta = f"SELECT * FROM ({projection.delta}) d WHERE (SELECT public.taste($1::bigint, $2::bigint))"
    return msgspec.structs.replace(projection, delta=delta)


async def poison(owner: Connection, *positions: int) -> None:
    """No event at these positions can be folded."""
    await owner.executemany("INSERT INTO public.poison VALUES ($1)", [(p,) for p in positions])


async def heal(owner: Connection, *positions: int) -> None:
    """These can; without any, all can."""
    await owner.execute(
        "DELETE FROM public.poison WHERE position = ANY($1) OR cardinality($1::bigint[]) = 0", positions
    )


async def empty(owner: Connection, projections: Sequence[Projection]) -> None:
    """The log and its views as at the very first start, for another example in the same database; by who may take the guards off."""
    tables = ["events", *(row[0] for row in await owner.fetch("SELECT name FROM emberlog.event_partitions"))]
    async with owner.transaction():
        for table in tables:
            await owner.execute(f"ALTER TABLE emberlog.{table} DISABLE TRIGGER append_only")
        await owner.execute("TRUNCATE emberlog.events")
        for table in tables:
            await owner.execute(f"ALTER TABLE emberlog.{table} ENABLE ALWAYS TRIGGER append_only")
        for projection in projections:
            rows = await owner.fetch("SELECT generation FROM projections.cursors WHERE name = $1", projection.name)
            await owner.execute(f"DROP VIEW projections.{projection.name}")
            for generation in {1, *(row["generation"] for row in rows)}:
                await owner.execute(f"DROP TABLE IF EXISTS {projection.table_of(generation)}")
            await owner.execute("SET LOCAL ROLE emberlog_app")
            await owner.execute(projection.create_sql(projection.table_of(1)))
            await owner.execute(f"CREATE VIEW projections.{projection.name} AS TABLE {projection.table_of(1)}")
            await owner.execute("RESET ROLE")
        await owner.execute("DELETE FROM projections.cursors")
        await owner.execute("DELETE FROM projections.parked")
