"""A child process whose lines a test can wait for, and that never outlives the test."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
import sysconfig
from collections.abc import AsyncIterator, Mapping, Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


class Child:
    """A running child. Its stdout is read by `line`; its stderr is collected in `errors`."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        assert process.stdout is not None
        assert process.stderr is not None
        self.process = process
        self._stdout = process.stdout
        self._stderr = process.stderr
        self.errors: list[str] = []
        self._drain = asyncio.create_task(self._collect())

    @property
    def pid(self) -> int:
        return self.process.pid

    async def line(self, *, timeout: float = 30.0) -> str:
        """The next line of stdout, without its end. Fails when the child ends first, with what it said on stderr."""
        async with asyncio.timeout(timeout):
            raw = await self._stdout.readline()
            if not raw:
                await self._drain
                raise AssertionError(f"the child ended with {await self.process.wait()}:\n" + "".join(self.errors))
        return raw.decode().rstrip("\n")

    def send(self, number: signal.Signals) -> None:
        with contextlib.suppress(ProcessLookupError):
            self.process.send_signal(number)

    async def wait(self, *, timeout: float = 30.0) -> int:
        """Its exit code, once it has ended by itself."""
        async with asyncio.timeout(timeout):
            code = await self.process.wait()
            await self._drain
        return code

    async def kill(self) -> None:
        """`kill -9`, and the end of it. What it had still written to stdout is read away, which closes the pipe."""
        self.send(signal.SIGKILL)
        await self.wait()
        await self._stdout.read()

    async def _collect(self) -> None:
        while raw := await self._stderr.readline():
            self.errors.append(raw.decode(errors="replace"))


@contextlib.asynccontextmanager
async def running_python(
    arguments: Sequence[str],
    *,
    environment: Mapping[str, str] | None = None,
    user: int | None = None,
    group: int | None = None,
    interpreter: str = sys.executable,
) -> AsyncIterator[Child]:
    """An interpreter (this one) with `arguments`, in the project's root, with this one's packages; killed at the end of the block when it still runs."""
    switch: dict[str, object] = {} if user is None else {"user": user, "group": group, "extra_groups": []}
    process = await asyncio.create_subprocess_exec(
        interpreter,
        *arguments,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        cwd=ROOT,
        env={
            **os.environ,
            "PYTHONPATH": os.pathsep.join((str(ROOT), sysconfig.get_path("purelib"))),
            "PYTHONDONTWRITEBYTECODE": "1",
            **(environment or {}),
        },
        **switch,  # type: ignore[arg-type]  # the stubs type each keyword apart
    )
    child = Child(process)
    try:
        yield child
    finally:
        await child.kill()
