"""The sealed secrets of credentials: a row for each revision, of which the newest is in use."""

from __future__ import annotations

import asyncpg

from adapters.postgres.pool import Pool
from adapters.postgres.statements import statement

_ADD = statement("add_credential")
_DROP = statement("drop_credential")


async def add_sealed(pool: Pool, tenant: str, name: str, provider: str, sealed: bytes) -> int | None:
    """Keep a secret; returns its revision, None where somebody else was adding one at the same time."""
    try:
        revision = await pool.fetchval(_ADD, tenant, name, provider, sealed)
    except asyncpg.UniqueViolationError:
        return None
    assert isinstance(revision, int)
    return revision


async def sealed_secret(pool: Pool, tenant: str, name: str, revision: int) -> tuple[str, bytes] | None:
    """The provider and the sealed secret of this revision; None where it is gone."""
    row = await pool.fetchrow(
        "SELECT provider, sealed FROM emberlog.credentials WHERE tenant = $1 AND name = $2 AND revision = $3",
        tenant,
        name,
        revision,
    )
    return None if row is None or row["sealed"] is None else (row["provider"], row["sealed"])


async def forget_older(pool: Pool, tenant: str, name: str, revision: int) -> None:
    """Forget the revisions before this one."""
    await pool.execute(
        "DELETE FROM emberlog.credentials WHERE tenant = $1 AND name = $2 AND revision < $3", tenant, name, revision
    )


async def forget_revision(pool: Pool, tenant: str, name: str, revision: int) -> None:
    """Forget the secret of this revision alone; its number is not given again."""
    await pool.execute(
        "UPDATE emberlog.credentials SET sealed = NULL WHERE tenant = $1 AND name = $2 AND revision = $3",
        tenant,
        name,
        revision,
    )


async def forget_secret(pool: Pool, tenant: str, name: str, revision: int) -> None:
    """Forget the secrets up to this revision, whose number is not given again."""
    await pool.execute(_DROP, tenant, name, revision)


async def forget_credentials(pool: Pool, tenant: str) -> None:
    """Forget every credential of a tenant: it was shredded."""
    await pool.execute("DELETE FROM emberlog.credentials WHERE tenant = $1", tenant)
