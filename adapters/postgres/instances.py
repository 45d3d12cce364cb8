"""Questions about instances: which may still write, and what those that may not have left open."""

from __future__ import annotations

from uuid import UUID

from adapters.postgres.pool import UNREACHABLE, Pool
from adapters.postgres.statements import statement
from domain.events import EmbeddingRequested, decode_data
from domain.ports.event_log import LogUnavailable

_LIVE = statement("live_instances")
_OPEN = statement("open_of_fenced")


async def live_instances(pool: Pool, description: str | None = None) -> list[UUID]:
    """Every instance that was not fenced, or those of this description."""
    return [UUID(bytes=row[0].bytes) for row in await pool.fetch(_LIVE, description)]


async def open_of_fenced(pool: Pool, limit: int) -> list[tuple[str, EmbeddingRequested]]:
    """Up to `limit` attempts, with their tenants, that no outcome can come for any more. Raises `LogUnavailable`."""
    try:
        rows = await pool.fetch(_OPEN, limit)
    except UNREACHABLE as error:
        raise LogUnavailable(f"the requests view is out of reach: {type(error).__name__}") from error
    found = []
    for tenant, data in rows:
        requested = decode_data(EmbeddingRequested.TYPE, data)
        assert isinstance(requested, EmbeddingRequested)
        found.append((tenant, requested))
    return found
