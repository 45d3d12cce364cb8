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

_BULK_SETTINGS = {
    "work_mem": "64MB",
    "maintenance_work_mem": "64MB",
    # Grouping by hash needs no sort of every event; a second process shares the reading and decoding.
    "enable_sort": "off",
    "enable_seqscan": "off",
    "max_parallel_workers_per_gather": "1",
    "parallel_setup_cost": "0",
    "parallel_tuple_cost": "0",
    "min_parallel_table_scan_size": "0",
    "min_parallel_index_scan_size": "0",
}
_SECONDS, _BULK_SECONDS = 60.0, 3600.0
"""How long a statement may take before the line counts as dead: a live fold takes a second, the digest of a large view minutes."""


def application_name(name: str) -> str:
    """What a connection made under this name is called in Postgres."""
    return f"emberlog {name}"


async def connect(dsn: str, name: str, settings: Mapping[str, str] | None = None, *, bulk: bool = False) -> Connection:
    """A connection named `emberlog <name>`; `settings` are laid over the usual ones. Raises what asyncpg raises.

    `bulk` is for folding hundreds of thousands of events at once.
    """
    return await asyncpg.connect(
        dsn,
        timeout=10,
        command_timeout=_BULK_SECONDS if bulk else _SECONDS,
        server_settings={
            "application_name": application_name(name),
            **_SETTINGS,
            **(_BULK_SETTINGS if bulk else {}),
            **(settings or {}),
        },
    )
