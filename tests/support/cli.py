"""`emberlog` as a process."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a command ended and what it wrote."""

    code: int
    out: str
    error: str


class Cli:
    """Runs commands with these settings in the environment, and no others of ours."""

    def __init__(self, settings: Mapping[str, str]) -> None:
        inherited = {k: v for k, v in os.environ.items() if not k.startswith("EMBERLOG_")}
        self.environment = {**inherited, **settings, "PYTHONWARNINGS": "error"}

    async def start(self, *words: str) -> asyncio.subprocess.Process:
        """A command under way, its standard output in a pipe."""
        return await asyncio.create_subprocess_exec(
            sys.executable, "-m", "gateway.cli", *words,
            env=self.environment, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
            # Who runs the tests in the background has SIGINT ignored, and what is started inherits that.
            preexec_fn=partial(signal.signal, signal.SIGINT, signal.SIG_DFL),
        )  # fmt: skip

    async def run(self, *words: str) -> Outcome:
        """A command to its end."""
        process = await self.start(*words)
        async with asyncio.timeout(60):
            out, error = await process.communicate()
        assert process.returncode is not None
        return Outcome(process.returncode, out.decode(), error.decode())

    async def json(self, *words: str) -> Any:
        """What a command that succeeds prints with --json: one document and nothing else."""
        outcome = await self.run(*words, "--json")
        assert outcome.code == 0, outcome.error
        return json.loads(outcome.out)
