"""Looking for an event by its id, which no index holds: appends do not pay for what is asked for rarely."""

from __future__ import annotations

from uuid import UUID

from adapters.postgres.pool import connect
from adapters.postgres.statements import statement
from domain.ports.event_log import EventLog

_PAGE = 1000


async def position_of(dsn: str, log: EventLog, event_id: UUID) -> int | None:
    """The position of the event with this id: the table is scanned, then what is archived is read. None when there is none.

    Raises what the database raises, and what `EventLog.read` does.
    """
    connection = await connect(dsn, "log search", statement_timeout=0)
    try:
        found = await connection.fetchval("SELECT position FROM emberlog.events WHERE event_id = $1 LIMIT 1", event_id)
        floor = await connection.fetchval(statement("live_floor"))
    finally:
        await connection.close()
    if found is not None:
        return int(found)
    after, wanted = 0, event_id.bytes
    while after + 1 < (floor or 1) and (page := await log.read(after, _PAGE)):
        for event in page:
            if event.event_id == wanted:
                return event.position
        after = page[-1].position
    return None
