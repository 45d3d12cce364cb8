"""Whether the schema is still the one this build was made for, as readiness shows it: another release may migrate while we run."""

from __future__ import annotations

import asyncio
import time

from adapters.postgres.migrator import MigrationError, SchemaStatus, pooled_schema_state
from adapters.postgres.pool import UNREACHABLE, Pool

LOOK_SECONDS = 5.0
"""Readiness is asked for often, by anybody: the database is asked at most this often."""
WAIT_SECONDS = 2.0


class SchemaWatch:
    """Remembers what it saw last, so that probes cost the database next to nothing."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool
        self._seen: SchemaStatus | None = SchemaStatus.CURRENT  # a gateway on another does not start
        self._look_after = 0.0

    async def status(self) -> SchemaStatus | None:
        """How the schema stands to this build; None while the database does not say."""
        if time.monotonic() >= self._look_after:
            self._look_after = time.monotonic() + LOOK_SECONDS
            try:
                async with asyncio.timeout(WAIT_SECONDS):
                    self._seen = (await pooled_schema_state(self._pool)).status
            except (*UNREACHABLE, MigrationError):
                self._seen = None
        return self._seen
