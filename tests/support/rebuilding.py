"""Rebuild a view in a process of its own: `python -m tests.support.rebuilding DSN NAME BATCH [rollback]`. Prints each position it reaches.

Batches are of `BATCH` events, and a line has to be read from it before it goes on: that is where a test can stop it.
"""

from __future__ import annotations

import asyncio
import sys

from projections import pace
from projections.rebuild import Rebuild
from projections.runner import ALL


async def main(dsn: str, name: str, batch: str, *action: str) -> None:
    pace.BATCH = int(batch)
    [projection] = [p for p in ALL if p.name == name]

    def say(position: int, upto: int) -> None:
        print(position, flush=True)
        sys.stdin.readline()

    job = Rebuild(dsn, projection, progress=say)
    await (job.roll_back() if action else job.run())
    print("done", flush=True)


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
