"""A view as it was: folded anew from the log up to a position or a time of the past."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING

import msgspec

from domain.errors import GatewayError

if TYPE_CHECKING:
    from gateway.cli.progress import Advance
    from gateway.manage import Installation
    from projections.projection import Projection
    from projections.source import Connection


class Past(msgspec.Struct, frozen=True):
    """A view as of `position`, whose event was recorded at `time`, in a temporary `table` of the connection that folded it."""

    table: str
    position: int
    time: datetime | None


async def fold_past(
    installation: Installation, connection: Connection, projection: Projection, place: int | datetime, advance: Advance
) -> Past:
    """Fold the view up to `place`.

    Raises `invalid_request` for a place before or ahead of the log, or behind an event that cannot be folded.
    """
    import asyncpg

    from projections import cursor, fresh
    from projections.worker import poison, reason

    position = await (_at(installation, place) if isinstance(place, datetime) else _within(installation, place))
    seen = await cursor.look(connection, projection)
    skip = await fresh.parked_positions(connection, projection, seen.generation)
    try:
        table, time = await fresh.fold_fresh(
            connection, projection, position, installation.log.read, skip=skip, progress=advance
        )
    except asyncpg.PostgresError as error:
        if not poison(error):
            raise
        at = "" if seen.failed_position is None else f" at position {seen.failed_position}"
        raise GatewayError(
            "invalid_request",
            f"an event{at} cannot be folded ({reason(error)}): expected a place before it; see `emberlog projections list`, and "
            f"`emberlog projections park {projection.name}` to go on without it",
        ) from None
    return Past(table, position, time)


async def _within(installation: Installation, position: int) -> int:
    head = await installation.log.head()
    if position > head:
        raise GatewayError("invalid_request", f"the log ends at position {head}: expected a position up to there")
    return position


async def _at(installation: Installation, time: datetime) -> int:
    from projections.fresh import position_at
    from projections.usage.query import utc_text

    if time > datetime.now(UTC):
        raise GatewayError("invalid_request", f"{utc_text(time)} lies in the future: expected a time that has passed")
    position = await position_at(installation.log, time)
    if position == 0:
        raise GatewayError(
            "invalid_request",
            f"the log holds nothing as old as {utc_text(time)}: expected a later time, or position 0 for the empty view",
        )
    return position
