"""Reading a thread."""

from __future__ import annotations

from typing import Any

import asyncpg

_SQL = """
    SELECT position, recorded_at, state, request_id, attempt, agent, model, task, provider, inputs, tokens, billed_tokens, nano_usd,
        latency_ms, code
    FROM projections.threads WHERE tenant = $1 AND thread = $2 AND position > $3 ORDER BY position LIMIT $4
"""


async def read_thread(
    connection: asyncpg.Connection[asyncpg.Record] | asyncpg.Pool[asyncpg.Record],
    tenant: str,
    thread: str,
    after: int,
    limit: int,
) -> list[dict[str, Any]]:
    """Up to `limit` rows of the thread with position > `after`, in the order of the log."""
    return [dict(row) for row in await connection.fetch(_SQL, tenant, thread, after, limit)]
