"""The sealed secrets of webhooks: one signs, after a rotation another beside it until it expires."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import timedelta

from adapters.postgres.pool import Pool
from adapters.postgres.statements import statement

_ADD = statement("add_webhook_secret")
_VALID = (
    "SELECT webhook, sealed FROM emberlog.webhook_secrets WHERE webhook = ANY($1) "
    "AND (expires_at IS NULL OR expires_at > clock_timestamp()) ORDER BY webhook, number DESC"
)


async def add_secret(pool: Pool, webhook: str, tenant: str, sealed: bytes, overlap: timedelta) -> None:
    """A new secret; those before it are valid for `overlap` yet, at most one of them."""
    await pool.execute(_ADD, webhook, tenant, sealed, overlap)


async def drop_secrets(pool: Pool, webhook: str) -> None:
    """Forget every secret of the webhook."""
    await pool.execute("DELETE FROM emberlog.webhook_secrets WHERE webhook = $1", webhook)


async def valid_secrets(pool: Pool, webhooks: Iterable[str]) -> dict[str, list[bytes]]:
    """The sealed secrets that sign now, the newest first, by webhook."""
    found: dict[str, list[bytes]] = {}
    for row in await pool.fetch(_VALID, list(webhooks)):
        found.setdefault(row["webhook"], []).append(row["sealed"])
    return found
