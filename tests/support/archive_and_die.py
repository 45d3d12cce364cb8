"""Archives the oldest partition of a log and is killed at a step: `python -m tests.support.archive_and_die DSN FOLDER STEP`."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from datetime import UTC, datetime
from pathlib import Path

from adapters.archive.archiver import Archiver, Partition, Step
from tests.support.databases import with_user


async def main(dsn: str, folder: str, last: str) -> None:
    """Runs until that step is reached."""

    async def on_step(partition: Partition, step: Step, position: int) -> None:
        if step == last:
            os.kill(os.getpid(), signal.SIGKILL)

    archiver = await Archiver.open(dsn, with_user(dsn, "emberlog_gateway"), Path(folder))
    [oldest, *_] = await archiver.candidates(datetime.now(UTC))
    await archiver.archive(oldest, on_step)


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
