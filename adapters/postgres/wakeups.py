"""Wake-ups: appenders poke, readers are called. Coalesced and lossy on purpose: polling stays every reader's own duty."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress
from random import random

from adapters.postgres.pool import UNREACHABLE, Connection, RoleMissing, connect

CHANNEL = "emberlog"
COALESCE_SECONDS = 0.02
_MAX_BACKOFF = 2.0
_ALIVE_SECONDS = 10.0
"""How often a silent connection is asked for a sign of life; the network may have dropped it without a word."""


class Wakeups:
    """One connection that notifies and listens, kept open by a task of its own."""

    def __init__(self, dsn: str, *, coalesce_seconds: float = COALESCE_SECONDS) -> None:
        self._dsn = dsn
        self._coalesce = coalesce_seconds
        self._callbacks: list[Callable[[], None]] = []
        self._poked = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._listening = asyncio.Event()

    def on_wake(self, callback: Callable[[], None]) -> None:
        """Call `callback` when something was appended by any process, and whenever the connection was made anew."""
        self._callbacks.append(callback)

    def poke(self) -> None:
        """Something was appended: wake the readers of all processes within the coalescing time. Costs nothing when repeated."""
        self._poked.set()

    async def start(self) -> None:
        """Start listening in the background; returns at once, connected or not."""
        if self._task is None:
            self._task = asyncio.create_task(self._run(), name="wake-ups")

    async def listening(self) -> None:
        """Wait until the connection listens."""
        await self._listening.wait()

    async def close(self) -> None:
        """Stop. Idempotent."""
        if self._task is not None:
            self._task.cancel()
            with suppress(asyncio.CancelledError):
                await self._task
            self._task = None

    async def _run(self) -> None:
        backoff = 0.05
        while True:
            with suppress(*UNREACHABLE, RoleMissing):
                connection = await connect(self._dsn, "wake-ups", statement_timeout=5)
                backoff = 0.05
                try:
                    await self._serve(connection)
                finally:
                    self._listening.clear()
                    connection.terminate()
            await asyncio.sleep(backoff * (0.5 + random() / 2))
            backoff = min(backoff * 2, _MAX_BACKOFF)

    async def _serve(self, connection: Connection) -> None:
        loop = asyncio.get_running_loop()
        lost = loop.create_future()

        def terminated(_: object) -> None:
            self._poked.set()
            if not lost.done():
                lost.set_result(None)

        connection.add_termination_listener(terminated)
        await connection.add_listener(CHANNEL, self._notified)
        self._listening.set()
        self._wake_all()
        while not lost.done():
            try:
                await asyncio.wait_for(self._poked.wait(), _ALIVE_SECONDS)
            except TimeoutError:
                await connection.execute("SELECT 1", timeout=5)
                continue
            self._poked.clear()
            if not lost.done():
                await connection.execute(f"NOTIFY {CHANNEL}", timeout=5)
                await asyncio.sleep(self._coalesce)

    def _notified(self, *_: object) -> None:
        self._wake_all()

    def _wake_all(self) -> None:
        for callback in self._callbacks:
            try:
                callback()
            except Exception as error:
                context = {"message": "a wake-up callback failed", "exception": error}
                asyncio.get_running_loop().call_exception_handler(context)
