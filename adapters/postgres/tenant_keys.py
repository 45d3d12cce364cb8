"""Where the tenants' wrapped keys are kept: one row each, written once."""

from __future__ import annotations

from typing import Protocol

import asyncpg


class Executor(Protocol):
    """A connection or a pool."""

    async def fetch(self, query: str, *args: object) -> list[asyncpg.Record]: ...

    async def fetchval(self, query: str, *args: object) -> object: ...


_INSERT = """
WITH made AS (INSERT INTO emberlog.tenant_keys (tenant, wrapped) VALUES ($1, $2) ON CONFLICT DO NOTHING RETURNING wrapped)
SELECT wrapped FROM made UNION ALL SELECT wrapped FROM emberlog.tenant_keys WHERE tenant = $1 LIMIT 1
"""


async def put_if_absent(database: Executor, tenant: str, wrapped: bytes) -> bytes:
    """Keep `wrapped` unless the tenant has a key; returns the one that is kept."""
    kept = await database.fetchval(_INSERT, tenant, wrapped)
    if not isinstance(kept, bytes):
        # A concurrent insert committed between the two halves of the statement's snapshot: it is visible now.
        kept = await database.fetchval("SELECT wrapped FROM emberlog.tenant_keys WHERE tenant = $1", tenant)
    assert isinstance(kept, bytes)
    return kept


async def all_wrapped(database: Executor) -> dict[str, bytes]:
    """Every tenant's wrapped key."""
    return {
        row["tenant"]: row["wrapped"]
        for row in await database.fetch("SELECT tenant, wrapped FROM emberlog.tenant_keys")
    }
