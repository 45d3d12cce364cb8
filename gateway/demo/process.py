"""A gateway in a process of its own, as a user would start it: for the demo, the bench and the acceptance tests."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import sys
from collections.abc import Mapping
from pathlib import Path

_READY = re.compile(rb"listening on (http\S+)")
_KEY = re.compile(rb"(em_[0-9a-f]{16}_[A-Za-z0-9_-]{43})")


class GatewayFailed(Exception):
    """The gateway ended before it was ready; the message ends with what it wrote to standard error."""


class GatewayProcess:
    """`emberlog serve` with a data folder and an address; `url` and, on a first embedded start, `key` are read from its output.

    What it writes to standard error is kept in `log` (a file).
    """

    def __init__(self, data_dir: Path, listen: str, log: Path, env: Mapping[str, str] | None = None) -> None:
        self._env = {**os.environ, **(env or {}), "EMBERLOG_DATA_DIR": str(data_dir), "EMBERLOG_LISTEN": listen}
        self._log = log
        self._process: asyncio.subprocess.Process | None = None
        self.url = ""
        self.key: str | None = None

    @property
    def pid(self) -> int:
        """The gateway's process id."""
        assert self._process is not None
        return self._process.pid

    @property
    def environment(self) -> dict[str, str]:
        """The environment that it runs in; a management command run in it reaches the same installation."""
        return dict(self._env)

    async def start(self, timeout: float = 120.0) -> None:
        """Start, and wait until it listens. Raises `GatewayFailed`."""
        self.url = ""
        start = self._log.stat().st_size if self._log.exists() else 0
        with self._log.open("ab") as log:
            self._process = await asyncio.create_subprocess_exec(
                sys.executable, "-m", "gateway.cli", "serve", stdout=asyncio.subprocess.PIPE, stderr=log, env=self._env
            )
        assert self._process.stdout is not None
        try:
            async with asyncio.timeout(timeout):
                while line := await self._process.stdout.readline():
                    if match := _READY.search(line):
                        self.url = match[1].decode()
                        break
        except TimeoutError:
            self._process.kill()
        if not self.url:
            await self._process.wait()
            raise GatewayFailed(f"the gateway did not start; its log says:\n{self._log.read_text()[-2000:]}")
        with self._log.open("rb") as log_read:
            log_read.seek(start)
            if match := _KEY.search(log_read.read()):
                self.key = match[1].decode()

    async def kill(self) -> None:
        """End it at once, as a crash would (SIGKILL)."""
        await self._end(signal.SIGKILL)

    async def stop(self) -> int:
        """Ask it to finish (SIGTERM) and wait; returns its exit code."""
        return await self._end(signal.SIGTERM)

    async def _end(self, number: int) -> int:
        process = self._process
        if process is None:
            return 0
        if process.returncode is None:
            process.send_signal(number)
        return await process.wait()
