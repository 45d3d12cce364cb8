"""Deliveries to webhooks as the database keeps them: put down once, claimed when due, ended, or dead after the last try."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from uuid import UUID

import msgspec

from adapters.postgres.pool import Pool
from adapters.postgres.statements import statement
from domain.events import SYSTEM_TENANT

_PUT, _CLAIM, _ENDED, _LIST, _SWEEP = (
    statement(f"deliveries_{name}") for name in ("put", "claim", "ended", "list", "sweep")
)
_FORGET_TENANT = statement("forget_tenant_webhooks")


class Due(msgspec.Struct, frozen=True):
    """A delivery to try now. `attempts` counts the tries before this one since it was put down or put back, `tries` all of them."""

    webhook: str
    position: int
    attempts: int
    tries: int
    event_id: UUID


class Delivery(msgspec.Struct, frozen=True):
    """A delivery as people see it. `state` is `pending`, `delivered` or `dead`; `next_at` is when a pending one is tried next."""

    webhook: str
    position: int
    tenant: str
    type: str
    event_id: UUID
    state: str
    tries: int
    created_at: datetime
    next_at: datetime | None
    ended_at: datetime | None
    last_at: datetime | None
    last_status: int | None
    last_reason: str | None
    last_ms: int | None


class Planned(msgspec.Struct, frozen=True):
    """An event that goes to a webhook."""

    webhook: str
    position: int
    tenant: str
    type: str
    event_id: UUID


async def cursors(pool: Pool) -> dict[str, int]:
    """Up to which position the deliveries of each webhook have been put down."""
    rows = await pool.fetch("SELECT webhook, position FROM emberlog.webhook_cursors")
    return {row["webhook"]: row["position"] for row in rows}


async def put(pool: Pool, planned: Sequence[Planned], reached: Mapping[str, int]) -> None:
    """Put deliveries down and move the webhooks' cursors, in one transaction; what is there already stays as it is."""
    columns = [list(column) for column in zip(*map(msgspec.structs.astuple, planned), strict=True)] or [[]] * 5
    await pool.execute(_PUT, *columns, list(reached), list(reached.values()))


async def claim(pool: Pool, room: Mapping[str, int], hold: timedelta) -> list[Due]:
    """Up to `room` due deliveries of each webhook, the longest due first. They are not due again for `hold`, unless `ended` says so."""
    rows = await pool.fetch(_CLAIM, list(room), list(room.values()), hold)
    return [msgspec.convert(dict(row), Due) for row in rows]


async def ended(
    pool: Pool,
    due: Due,
    *,
    delivered: bool,
    status: int | None,
    reason: str | None,
    ms: int,
    again: timedelta | None,
) -> bool:
    """Note a try: delivered, or to be tried `again` after a while, or dead (None). False where another process has tried it since."""
    state = "delivered" if delivered else "dead" if again is None else "pending"
    return bool(
        await pool.fetchval(
            _ENDED, due.webhook, due.position, due.tries, state, again or timedelta(0), status, reason, ms
        )
    )


async def drop(pool: Pool, due: Due) -> None:
    """Forget a delivery that is no longer wanted."""
    await pool.execute(
        "DELETE FROM emberlog.deliveries WHERE webhook = $1 AND position = $2", due.webhook, due.position
    )


async def listed(
    pool: Pool,
    webhooks: Sequence[str],
    *,
    state: str | None = None,
    event_id: UUID | None = None,
    limit: int = 100,
) -> list[Delivery]:
    """Deliveries of these webhooks, those of the newest events first."""
    rows = await pool.fetch(_LIST, list(webhooks), state, event_id, limit)
    return [msgspec.convert(dict(row), Delivery) for row in rows]


async def requeue(pool: Pool, webhook: str, event_id: UUID | None) -> int:
    """Try dead letters of a webhook again, from the first pause on: that of one event, or all (None); returns how many."""
    done = await pool.execute(
        "UPDATE emberlog.deliveries SET state = 'pending', attempts = 0, next_at = clock_timestamp(), ended_at = NULL "
        "WHERE webhook = $1 AND state = 'dead' AND ($2::uuid IS NULL OR event_id = $2)",
        webhook,
        event_id,
    )
    return int(done.split()[-1])


async def discard(pool: Pool, webhook: str, event_id: UUID | None) -> int:
    """Forget dead letters of a webhook: that of one event, or all (None); returns how many."""
    done = await pool.execute(
        "DELETE FROM emberlog.deliveries WHERE webhook = $1 AND state = 'dead' AND ($2::uuid IS NULL OR event_id = $2)",
        webhook,
        event_id,
    )
    return int(done.split()[-1])


async def forget(pool: Pool, webhook: str, owner: str) -> None:
    """Forget what is kept of a webhook of this owner (a tenant, or `_system`): it was deleted.

    Another may have made one under the same id by now, whose secret has to stay.
    """
    await pool.execute(
        "DELETE FROM emberlog.deliveries WHERE webhook = $1 AND ($2 = tenant OR $2 = $3)", webhook, owner, SYSTEM_TENANT
    )
    await pool.execute("DELETE FROM emberlog.webhook_secrets WHERE webhook = $1 AND tenant = $2", webhook, owner)
    await pool.execute("DELETE FROM emberlog.webhook_cursors WHERE webhook = $1", webhook)


async def forget_tenant(pool: Pool, tenant: str) -> None:
    """Forget what is kept of a tenant's webhooks: it was shredded."""
    await pool.execute(_FORGET_TENANT, tenant)


async def sweep(pool: Pool, delivered: timedelta, dead: timedelta, known: Sequence[str]) -> int:
    """Forget deliveries that ended longer ago than that, and everything of webhooks that are not `known`; returns how many deliveries."""
    return int(await pool.fetchval(_SWEEP, delivered, dead, list(known)))


async def backlog(pool: Pool) -> dict[str, int]:
    """How many deliveries of each webhook wait."""
    rows = await pool.fetch(
        "SELECT webhook, count(*) AS n FROM emberlog.deliveries WHERE state = 'pending' GROUP BY webhook"
    )
    return {row["webhook"]: row["n"] for row in rows}


async def counts(pool: Pool) -> dict[str, int]:
    """How many deliveries wait (`pending`) and how many are `dead`."""
    rows = await pool.fetch(
        "SELECT state, count(*) AS n FROM emberlog.deliveries WHERE state <> 'delivered' GROUP BY state"
    )
    return {row["state"]: row["n"] for row in rows}
