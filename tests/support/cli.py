"""`emberlog` as a process: started afresh, or forked from one that has loaded it."""

from __future__ import annotations

import asyncio
import atexit
import functools
import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from io import FileIO
from pathlib import Path
from typing import Any

import msgspec


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
        """A command under way in a fresh interpreter, its standard output in a pipe."""
        return await asyncio.create_subprocess_exec(
            sys.executable, "-m", "gateway.cli", *words,
            env=self.environment, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
            # Who runs the tests in the background has SIGINT ignored, and what is started inherits that.
            preexec_fn=partial(signal.signal, signal.SIGINT, signal.SIG_DFL),
        )  # fmt: skip

    async def run(self, *words: str) -> Outcome:
        """A command to its end, in a fork of a process that has loaded it."""
        return await run_forked(words, self.environment)

    async def json(self, *words: str) -> Any:
        """What a command that succeeds prints with --json: one document and nothing else."""
        outcome = await self.run(*words, "--json")
        assert outcome.code == 0, outcome.error
        return json.loads(outcome.out)


async def run_forked(words: Sequence[str], environment: Mapping[str, str], timeout: float = 60) -> Outcome:
    """`emberlog` with these words in this environment to its end, in a fork of a process that has loaded it; killed after `timeout`."""
    request = {"words": words, "environment": environment, "folder": str(Path.cwd())}
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as asker, _kept() as out, _kept() as error:
        asker.connect(_preloaded())
        socket.send_fds(asker, [msgspec.json.encode(request)], [out.fileno(), error.fileno()])
        asker.setblocking(False)
        async with asyncio.timeout(timeout):
            code = await asyncio.get_running_loop().sock_recv(asker, 16)
        return Outcome(int(code), _text(out), _text(error))


@functools.cache
def _preloaded() -> str:
    """The address of this process's `tests.support.preloaded`, started when it is first asked for."""
    process = subprocess.Popen(
        [sys.executable, "-W", "error", "-m", "tests.support.preloaded"],
        cwd=Path(__file__).parents[2],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        start_new_session=True,  # Ctrl-C is for the tests, which end it
    )
    assert process.stdin is not None
    assert process.stdout is not None
    atexit.register(process.communicate)  # ends with its standard input
    name = process.stdout.readline().decode().strip()
    assert name, "the process that runs commands did not start"
    return f"\0{name}"


def _kept() -> FileIO:
    """A file for what a command writes."""
    return FileIO(os.memfd_create("written"), "r+")


def _text(file: FileIO) -> str:
    file.seek(0)
    return file.read().decode()
