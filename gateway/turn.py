"""Whose turn it is to start servers in a data folder: a gateway's or a management command's, one at a time.

A command without a gateway runs Postgres for its own short time; neither another command nor a gateway that starts meanwhile may find that
Postgres and lose it halfway, or be told that the folder is in use for the blink of a command.
"""

from __future__ import annotations

import asyncio
import fcntl
import os
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from adapters.embedded import EmbeddedError
from adapters.embedded.layout import make_data_folder

PATIENCE_SECONDS = 60.0
"""How long one waits for another command, or for a gateway that is starting or stopping."""


class TurnTaken(EmbeddedError):
    """Another command has held the data folder for too long; the message says what to do."""


@asynccontextmanager
async def turn(data_dir: Path) -> AsyncIterator[None]:
    """Hold the turn; the folder is made if it is missing. Raises `TurnTaken` after `PATIENCE_SECONDS`."""
    handle = os.open(make_data_folder(data_dir) / "command.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    give_up = time.monotonic() + PATIENCE_SECONDS
    try:
        while True:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() > give_up:
                    raise TurnTaken(
                        f"another command has been using the data folder {data_dir} for {PATIENCE_SECONDS:.0f} s: wait for it, or end it"
                    ) from None
                await asyncio.sleep(0.05)
        yield
    finally:
        os.close(handle)
