"""Where the tenants' wrapped keys are kept: one row each. A shredded tenant keeps its row, without a key, for good."""

from __future__ import annotations

import asyncio
import re
from typing import Protocol

import asyncpg

from adapters.postgres.pool import Connection


class Executor(Protocol):
    """A connection or a pool."""

    async def fetch(self, query: str, *args: object) -> list[asyncpg.Record]: ...

    async def fetchval(self, query: str, *args: object) -> object: ...

    async def execute(self, query: str, *args: object) -> str: ...


_INSERT = "INSERT INTO emberlog.tenant_keys (tenant, wrapped) VALUES ($1, $2) ON CONFLICT DO NOTHING"
_DESTROY = """
WITH forgotten AS (DELETE FROM emberlog.credentials WHERE tenant = $1)
INSERT INTO emberlog.tenant_keys (tenant, shredded_at) VALUES ($1, clock_timestamp())
ON CONFLICT (tenant) DO UPDATE SET wrapped = NULL, shredded_at = excluded.shredded_at WHERE tenant_keys.wrapped IS NOT NULL
RETURNING true
"""


async def put_if_absent(database: Executor, tenant: str, wrapped: bytes) -> bytes | None:
    """Keep `wrapped` unless the tenant has a row; returns the key that is kept, None where the tenant was shredded."""
    await database.fetchval(_INSERT, tenant, wrapped)
    kept = await database.fetchval("SELECT wrapped FROM emberlog.tenant_keys WHERE tenant = $1", tenant)
    assert kept is None or isinstance(kept, bytes)
    return kept


async def all_wrapped(database: Executor) -> dict[str, bytes]:
    """The wrapped key of every tenant that has one."""
    rows = await database.fetch("SELECT tenant, wrapped FROM emberlog.tenant_keys WHERE wrapped IS NOT NULL")
    return {row["tenant"]: row["wrapped"] for row in rows}


async def shredded_tenants(database: Executor) -> frozenset[str]:
    """Every tenant whose key was destroyed."""
    rows = await database.fetch("SELECT tenant FROM emberlog.tenant_keys WHERE shredded_at IS NOT NULL")
    return frozenset(row["tenant"] for row in rows)


async def hold_writers(database: Executor, *, alone: bool) -> None:
    """In a transaction: `alone` keeps every other writer of keys out until its end, else only whoever wants to be alone."""
    mode = "SHARE ROW EXCLUSIVE" if alone else "ROW EXCLUSIVE"
    await database.execute(f"LOCK TABLE emberlog.tenant_keys IN {mode} MODE")


async def replace_wrapped(owner: Connection, wrapped: dict[str, bytes]) -> None:
    """Store these keys wrapped anew. A shredded tenant gets none."""
    await owner.executemany(
        "UPDATE emberlog.tenant_keys SET wrapped = $2 WHERE tenant = $1 AND wrapped IS NOT NULL", list(wrapped.items())
    )


async def destroy(owner: Connection, tenant: str) -> bool:
    """Destroy a tenant's key, so that its name never gets another one either, and forget the secrets of its credentials, which it sealed.

    False when that was done before.
    """
    return await owner.fetchval(_DESTROY, tenant) is True


_WIPE_PAUSES = (0.1, 0.3, 1.0)
"""Seconds between tries to wipe what a transaction of somebody else may still see."""


async def wipe_destroyed(owner: Connection) -> bool:
    """Write the table anew without the dead rows that still hold what was replaced or destroyed.

    False when some are left, because the table is in use, or a transaction is open that began before they died. Short ones, which go on
    all the time in a busy installation, are waited for.
    """
    for wait in (*_WIPE_PAUSES, None):
        if await _wipe_once(owner):
            return True
        if wait is not None:
            await asyncio.sleep(wait)
    return False


async def _wipe_once(owner: Connection) -> bool:
    told: list[str] = []

    def listen(_: object, message: asyncpg.PostgresLogMessage) -> None:
        if message.detail:
            told.append(message.detail)

    owner.add_log_listener(listen)
    try:
        await owner.execute("SET lock_timeout = '5s'")
        await owner.execute("VACUUM (FULL, VERBOSE) emberlog.tenant_keys")
        await asyncio.sleep(0)  # listeners are called a turn later
    except asyncpg.PostgresError:
        return False
    finally:
        owner.remove_log_listener(listen)
    # In whatever language: "0 dead row versions cannot be removed yet".
    left = [re.search(r"\d+", detail) for detail in told]
    return bool(left) and all(number is not None and int(number[0]) == 0 for number in left)
