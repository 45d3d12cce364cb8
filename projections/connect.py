"""Connections of projections: in the application's role, in UTC, planning each batch for its own size."""

from __future__ import annotations

from collections.abc import Mapping

import asyncpg

from projections.source import Connection

_SETTINGS = {
    "role": "emberlog_app",
    "timezone": "UTC",
    "datestyle": "ISO, YMD",  # digests are of rows as text
    "idle_in_transaction_session_timeout": "60000",
    "lock_timeout": "5000",
    "plan_cache_mode": "force_custom_plan",
    "jit": "off",
}


async def connect(dsn: str, name: str, settings: Mapping[str, str] | None = None) -> Connection:
    """A connection named `emberlog <name>`; `settings` are laid over the usual ones. Raises what asyncpg raises."""
    return await asyncpg.connect(
        dsn,
        timeout=10,
        command_timeout=300,
        server_settings={"application_name": f"emberlog {name}", **_SETTINGS, **(settings or {})},
    )
