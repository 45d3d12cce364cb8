"""One server under supervision: started, probed until it answers, started again when it dies, stopped.

The supervisor asks the kernel to signal the server when the supervisor's thread dies, so a `kill -9` of the gateway ends in an
orderly shutdown of Postgres rather than in an orphan. Should one be left all the same, the next start ends it first.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from adapters.embedded.account import Account
from adapters.embedded.errors import ServiceFailed

logger = logging.getLogger("emberlog.embedded")

LOG_LIMIT_BYTES = 8 * 1024 * 1024
_LOG_CHECK_S = 30.0
_FIRST_BACKOFF_S = 0.1
_LONGEST_BACKOFF_S = 5.0
_HEALTHY_S = 30.0
"""A server that ran this long before it died is started again at once."""
CLEAN_ENVIRONMENT = {"PATH": "/usr/bin:/bin", "LC_ALL": "C", "TZ": "UTC"}
"""What a server sees of the environment: no PGDATA, PGPORT or secret of ours reaches it."""


@dataclass(frozen=True, slots=True)
class ServiceEvent:
    """Something happened to a server. `kind` is died, restarted, restart_failed or orphan_ended; `detail` is for people."""

    service: str
    kind: str
    detail: str


OnEvent = Callable[[ServiceEvent], None]


class Service(ABC):
    """A server program and the task that keeps it running. Subclasses say how to run, probe and end it."""

    name: str
    stop_signal: signal.Signals
    """Asks for an orderly end; also what the kernel sends when the supervisor dies."""
    urgent_signal: signal.Signals
    """Asks again, less patiently."""
    ready_timeout_s: float
    stop_timeout_s: float

    def __init__(self, account: Account, log_path: Path, on_event: OnEvent | None) -> None:
        self._account = account
        self._log_path = log_path
        self._on_event = on_event
        self._process: subprocess.Popen[bytes] | None = None
        self._exited = asyncio.Event()
        self._watcher: asyncio.Task[None] | None = None

    @property
    def pid(self) -> int | None:
        """The pid of the server while it runs."""
        return self._process.pid if self._process and not self._exited.is_set() else None

    @abstractmethod
    def command(self) -> list[str]:
        """Program (absolute path) and arguments."""

    @abstractmethod
    async def clear_the_way(self) -> None:
        """End what an earlier life left running and make the files ready for a start."""

    @abstractmethod
    async def answers(self) -> bool:
        """Whether the server takes requests now. Must not raise while it is still starting."""

    async def start(self) -> None:
        """Start the server, wait until it answers and keep it running from then on. Raises `ServiceFailed`."""
        await self._launch()
        self._watcher = asyncio.create_task(self._watch(), name=f"embedded-{self.name}")

    async def stop(self) -> None:
        """End the server in order, harder when it does not. Idempotent."""
        if self._watcher is not None:
            self._watcher.cancel()
            await asyncio.wait({self._watcher})
            self._watcher = None
        await self._end_process()

    async def _end_process(self) -> None:
        process = self._process
        if process is None:
            return
        steps = ((self.stop_signal, self.stop_timeout_s), (self.urgent_signal, 5.0), (signal.SIGKILL, 5.0))
        for number, timeout in steps:
            process.send_signal(number)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(timeout):
                    await self._exited.wait()
                self._process = None
                return
        raise ServiceFailed(f"{self.name} (pid {process.pid}) does not end, not even by SIGKILL: see {self._log_path}")

    async def _launch(self) -> None:
        await self.clear_the_way()
        self._spawn()
        try:
            await self._until_it_answers()
        except BaseException:
            await self._end_process()
            raise

    def _spawn(self) -> None:
        self._bound_log()
        account = self._account
        log = os.open(self._log_path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        account.owns(self._log_path)
        try:
            self._process = subprocess.Popen(  # noqa: S603 - our own shim and a program of an installed wheel, no shell
                as_child(account, self.stop_signal, self.command()),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd="/",
                env=CLEAN_ENVIRONMENT,
                start_new_session=True,  # Ctrl-C in a terminal is for the supervisor, which then stops us in order
            )
        finally:
            os.close(log)
        self._exited = exited = asyncio.Event()
        threading.Thread(
            target=_wait_for,
            args=(self._process, asyncio.get_running_loop(), exited),
            name=f"wait-{self.name}",
            daemon=True,
        ).start()

    async def _until_it_answers(self) -> None:
        give_up = time.monotonic() + self.ready_timeout_s
        pause = 0.005
        while not await self.answers():
            if self._exited.is_set():
                raise ServiceFailed(
                    f"{self.name} ended while it started; the end of {self._log_path}:\n{self._log_tail()}"
                )
            if time.monotonic() > give_up:
                raise ServiceFailed(
                    f"{self.name} does not answer after {self.ready_timeout_s:.0f} s; the end of {self._log_path}:\n{self._log_tail()}"
                )
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(pause):
                    await self._exited.wait()
            pause = min(pause * 1.3, 0.05)

    async def _watch(self) -> None:
        backoff = _FIRST_BACKOFF_S
        while True:
            born = time.monotonic()
            await self._until_it_dies()
            code = self._process.returncode if self._process else None
            self._report("died", f"{self.name} ended by itself ({_how_it_ended(code)}); it is started again")
            if time.monotonic() - born > _HEALTHY_S:
                backoff = _FIRST_BACKOFF_S
            while not await self._started_again():
                await asyncio.sleep(backoff)
                backoff = min(backoff * 2, _LONGEST_BACKOFF_S)
            self._report("restarted", f"{self.name} runs again with pid {self.pid}")
            await asyncio.sleep(backoff)  # one that dies at once is started that much later
            backoff = min(backoff * 2, _LONGEST_BACKOFF_S)

    async def _started_again(self) -> bool:
        try:
            await self._launch()
        except (
            Exception
        ) as error:  # whatever it is, the server has to come back: report it, and the watcher tries again
            self._report("restart_failed", f"{self.name} could not be started again: {error}")
            return False
        return True

    async def _until_it_dies(self) -> None:
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_LOG_CHECK_S):
                    await self._exited.wait()
                    return
            self._bound_log()

    def _report(self, kind: str, detail: str) -> None:
        logger.log(logging.INFO if kind == "restarted" else logging.WARNING, "%s", detail)
        if self._on_event is None:
            return
        try:
            self._on_event(ServiceEvent(self.name, kind, detail))
        except Exception:
            logger.exception("a listener for events of the embedded services failed; the services go on")

    def _bound_log(self) -> None:
        """Keep at most two files of `LOG_LIMIT_BYTES`: the server appends to an open file, so the old content is copied aside."""
        with contextlib.suppress(OSError):
            if self._log_path.stat().st_size <= LOG_LIMIT_BYTES:
                return
            try:
                shutil.copy2(self._log_path, self._log_path.with_name(self._log_path.name + ".1"))
            finally:  # also on a full disk
                os.truncate(self._log_path, 0)

    def _log_tail(self, lines: int = 12) -> str:
        with contextlib.suppress(OSError), self._log_path.open("rb") as file:
            file.seek(max(0, self._log_path.stat().st_size - 8192))
            return "\n".join(file.read().decode(errors="replace").splitlines()[-lines:])
        return "(no log)"


def as_child(account: Account, death_signal: signal.Signals, command: Sequence[str]) -> list[str]:
    """The command line that runs `command` as `account`, to be signalled when the calling thread dies (see `child.py`)."""
    uid, gid = (account.uid, account.gid) if account.switch else (-1, -1)
    shim = [sys.executable, "-I", "-S", str(Path(__file__).with_name("child.py"))]
    return [*shim, str(os.getpid()), str(int(death_signal)), str(uid), str(gid), "077", *command]


def _wait_for(process: subprocess.Popen[bytes], loop: asyncio.AbstractEventLoop, exited: asyncio.Event) -> None:
    process.wait()
    with contextlib.suppress(RuntimeError):  # the loop is closed: nobody is left to tell
        loop.call_soon_threadsafe(exited.set)


def _how_it_ended(code: int | None) -> str:
    if code is None:
        return "unknown"
    return f"signal {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"
