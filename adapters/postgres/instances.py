"""Questions about instances: which may still write, and what those that may not have left open."""

from __future__ import annotations

from uuid import UUID

from adapters.postgres.pool import UNREACHABLE, Pool
from adapters.postgres.statements import statement
from domain.decoding import decode_data
from domain.events import EmbeddingRequested
from domain.ports.event_log import LogUnavailable

_LIVE = statement("live_instances")
_OPEN = statement("open_of_fenced")


async def live_instances(pool: Pool, description: str | None = None) -> list[UUID]:
    """Every instance that was not fenced, or those of this description."""
    return [UUID(bytes=row[0].bytes) for row in await pool.fetch(_LIVE, description)]


async def open_of_fenced(pool: Pool, limit: int) -> list[tuple[str, EmbeddingRequested]]:
    """Up to `limit` attempts, with their tenants, that no outcome can come for any more.

    Those written in a newer schema version are left to a gateway that knows it. Raises `LogUnavailable`.
    """
    try:
        rows = await pool.fetch(_OPEN, limit, EmbeddingRequested.SCHEMA)
    except UNREACHABLE as error:
        raise LogUnavailable(f"the requests view is out of reach: {type(error).__name__}") from error
    found = []
    for tenant, data, schema_version in rows:
        requested = decode_data(EmbeddingRequested.TYPE, data, schema_version)
        assert isinstance(requested, EmbeddingRequested)
        found.append((tenant, requested))
    return found
