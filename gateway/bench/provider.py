"""The simulated provider as a process of its own, and the handle by which the bench steers and questions it."""

from __future__ import annotations

import asyncio
import contextlib
import sys
import urllib.request
from collections.abc import AsyncIterator
from typing import Any, Self

import msgspec

from gateway.bench.cpu import pinned
from gateway.bench.simulator import Stats


class SimulatedProvider:
    """A running simulator. `url` is its root, without `/v1`."""

    def __init__(self, url: str) -> None:
        self.url = url

    @classmethod
    @contextlib.asynccontextmanager
    async def started(cls, cores: set[int], *arguments: str) -> AsyncIterator[Self]:
        """Start it on these cores; it ends with the block. Words are counted, not tokens: it shares its core with the load."""
        with pinned(cores):
            process = await asyncio.create_subprocess_exec(
                sys.executable, "-m", "gateway.bench.simulator", "--tokens", "words", *arguments, stdout=asyncio.subprocess.PIPE
            )  # fmt: skip
        assert process.stdout is not None
        try:
            line = (await process.stdout.readline()).decode()
            _, told, url = line.partition("listening on ")
            if not told:
                raise RuntimeError(f"the simulated provider did not start; it said {line!r}")
            yield cls(url.strip())
        finally:
            if process.returncode is None:
                process.terminate()
            await process.wait()

    async def control(self, **fields: Any) -> None:
        """See `gateway.bench.faults.Control`."""
        await asyncio.to_thread(self._ask, "/control", msgspec.json.encode(fields))

    async def stats(self) -> Stats:
        """What has come in since the start or the last reset."""
        return msgspec.json.decode(await asyncio.to_thread(self._ask, "/stats"), type=Stats, strict=False)

    def _ask(self, path: str, body: bytes | None = None) -> bytes:
        request = urllib.request.Request(self.url + path, data=body)  # noqa: S310 (our own process, over loopback)
        with urllib.request.urlopen(request, timeout=10) as answer:  # noqa: S310 (as above)
            content: bytes = answer.read()
        return content
