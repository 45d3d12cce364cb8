"""Sealing the log, continuously, beside the rest: no run of it is an event, which would have to be sealed in turn."""

from __future__ import annotations

import asyncio

import structlog

from adapters.postgres.pool import Pool
from adapters.postgres.seals import seal
from projections.worker import reason

_log = structlog.get_logger("emberlog.sealing")
SEAL_SECONDS = 5.0
MAX_PAUSE_SECONDS = 60.0


async def keep_sealed(pool: Pool, seconds: float = SEAL_SECONDS) -> None:
    """Seal what is due every `seconds`, until cancelled; after a failure the pauses grow. Run it in each process."""
    pause = seconds
    while True:
        await asyncio.sleep(pause)
        try:
            await seal(pool)
        except Exception as error:
            # Whatever it is, sealing must go on once it has passed.
            pause = min(pause * 2, MAX_PAUSE_SECONDS)
            _log.warning("sealing_postponed", reason=reason(error), retry_in_seconds=pause)
        else:
            pause = seconds
