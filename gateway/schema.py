"""Whether the schema is still the one this build was made for, as readiness shows it: another release may migrate while we run."""

from __future__ import annotations

import asyncio
import time

import structlog

from adapters.postgres.migrator import MigrationError, SchemaState, SchemaStatus, pooled_schema_state
from adapters.postgres.pool import UNREACHABLE, Pool

_log = structlog.get_logger("emberlog.schema")
LOOK_SECONDS = 5.0
"""Readiness is asked for often, by anybody: the database is asked at most this often."""
WAIT_SECONDS = 2.0


class SchemaWatch:
    """Remembers what it saw last, so that probes cost the database next to nothing. A change is one log line."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool
        self._seen: SchemaState | None = SchemaState(
            SchemaStatus.CURRENT
        )  # a gateway on one that it cannot use does not start
        self._told = SchemaStatus.CURRENT
        self._look_after = 0.0

    async def state(self) -> SchemaState | None:
        """How the schema stands to this build; None while the database does not say."""
        if time.monotonic() >= self._look_after:
            self._look_after = time.monotonic() + LOOK_SECONDS
            try:
                async with asyncio.timeout(WAIT_SECONDS):
                    self._seen = await pooled_schema_state(self._pool)
            except (*UNREACHABLE, MigrationError):
                self._seen = None
            else:
                self._tell(self._seen)
        return self._seen

    def _tell(self, seen: SchemaState) -> None:
        if seen.status is not self._told:
            self._told = seen.status
            (_log.info if seen.serves else _log.error)("schema_changed", status=seen.status.value, detail=seen.message)
