"""The simulated OpenAI server in a process of its own, and the handle by which a test tells it what to do wrong."""

from __future__ import annotations

import asyncio
import json
import os
import re
import subprocess
import sys
import urllib.request
from typing import Any

MODEL = "text-embedding-3-small"
DIMENSIONS = 64
"""What these tests ask for: short vectors, so that two cores are spent on the gateway and not on copying."""
LATENCY_MS = 5.0
_READY = re.compile(r"http://[0-9.]+:\d+")


class Simulator:
    """A provider whose vectors are `gateway.bench.vectors.vector_of`. `url` is its root, without `/v1`."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "gateway.bench.simulator", "--latency-ms", str(LATENCY_MS)],
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ},
        )
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        match = _READY.search(line)
        assert match is not None, f"the simulator did not say where it listens: {line!r}"
        self.url = match[0]

    def control(self, **fields: Any) -> None:
        """See `gateway.bench.faults.Control`."""
        body = json.dumps(fields).encode()
        request = urllib.request.Request(f"{self.url}/control", body, {"content-type": "application/json"})
        with urllib.request.urlopen(request, timeout=5) as answer:
            answer.read()

    def fault(self, kind: str, **fields: Any) -> None:
        """Do this to the next call, or as `count` and `marker` say."""
        self.control(faults=[{"kind": kind, **fields}])

    async def called(self, times: int) -> dict[str, Any]:
        """What it has been asked since the test began, once so many calls have arrived."""

        def ask() -> dict[str, Any]:
            with urllib.request.urlopen(f"{self.url}/stats?calls={times}", timeout=20) as answer:
                found: dict[str, Any] = json.loads(answer.read())
            return found

        return await asyncio.to_thread(ask)

    def behave(self) -> None:
        """Forget every fault and hold."""
        self.control(clear=True, reset=True, hold=False, latency_ms=LATENCY_MS)

    def close(self) -> None:
        """End the process."""
        self._process.kill()
        self._process.wait()
        if self._process.stdout is not None:
            self._process.stdout.close()
