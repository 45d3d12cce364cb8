"""Several gateway processes on one listening socket: a parent that starts them, restarts what dies and passes signals on.

The parent holds the data folder and the embedded services; each worker is a gateway of its own with its own lease on the log.
"""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import sys
from collections.abc import Callable, Mapping

import msgspec
import structlog

from adapters.postgres.event_log import PostgresEventLog
from adapters.postgres.instances import live_instances
from adapters.postgres.pool import UNREACHABLE
from domain.ports.event_log import LogUnavailable
from gateway.house import House, master_key
from gateway.instance import describe
from gateway.places import Places
from gateway.running import run_gateway, stop_on_signals
from gateway.settings import Settings, load_settings

_log = structlog.get_logger("emberlog.workers")
_FD, _PLACES = "EMBERLOG_WORKER_FD", "EMBERLOG_WORKER_PLACES"
_RESTART_SECONDS = 1.0
INTERNAL_VARIABLES = (_FD, _PLACES)


async def run_workers(
    settings: Settings, house: House, listener: socket.socket, stop: asyncio.Event, ready: Callable[[], None]
) -> None:
    """Keep `settings.workers` processes running until `stop`, then drain them all. `ready` is called once all of them answer."""
    environment = {
        **os.environ,
        _FD: str(listener.fileno()),
        _PLACES: msgspec.json.encode(house.places).decode(),
    }
    answering = [asyncio.Event() for _ in range(settings.workers)]
    keepers = [
        asyncio.create_task(_keep(house.places, environment, listener.fileno(), stop, event)) for event in answering
    ]
    all_ready = asyncio.create_task(_all(answering))
    ended = asyncio.create_task(stop.wait())
    await asyncio.wait({all_ready, ended}, return_when=asyncio.FIRST_COMPLETED)
    if all_ready.done():
        ready()
    all_ready.cancel()
    await ended
    await asyncio.gather(*keepers)


async def _all(events: list[asyncio.Event]) -> None:
    for event in events:
        await event.wait()


async def _keep(
    places: Places, environment: Mapping[str, str], fd: int, stop: asyncio.Event, ready: asyncio.Event
) -> None:
    """One worker, started again when it dies; told to drain when `stop` is set."""
    while not stop.is_set():
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "gateway.workers",
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            pass_fds=[fd],
            env=environment,
        )
        assert process.stdout is not None
        if await process.stdout.readline():
            ready.set()
        stopping = asyncio.create_task(stop.wait())
        dying = asyncio.create_task(process.wait())
        await asyncio.wait({stopping, dying}, return_when=asyncio.FIRST_COMPLETED)
        if stopping.done():
            if process.returncode is None:
                process.send_signal(signal.SIGTERM)
            await dying
            return
        stopping.cancel()
        _log.error("worker_died", pid=process.pid, exit_code=process.returncode)
        await _fence(places, process.pid)
        await asyncio.sleep(_RESTART_SECONDS)


async def _fence(places: Places, pid: int) -> None:
    """A worker known to be dead is fenced at once: what it held is given up now and not when its lease runs out."""
    try:
        log = await PostgresEventLog.connect(places.app_dsn)
        try:
            for instance in await live_instances(log.pool, describe(pid)):
                await log.fence_instance(instance)
        finally:
            await log.close()
    except (LogUnavailable, *UNREACHABLE) as error:
        _log.warning("worker_not_fenced", pid=pid, reason=type(error).__name__)


async def _work() -> None:
    settings = load_settings()
    stop = stop_on_signals()
    watching = asyncio.create_task(_stop_with_parent(stop))
    places = msgspec.json.decode(os.environ[_PLACES], type=Places)
    listener = socket.socket(fileno=int(os.environ[_FD]))
    await run_gateway(settings, House(places, master_key(settings)), listener, stop, _say_ready)
    watching.cancel()


def _say_ready() -> None:
    print("ready", flush=True)


async def _stop_with_parent(stop: asyncio.Event) -> None:
    """A worker whose parent is gone has lost the data folder: it drains and ends."""
    # The kernel tells: this pipe's other end is held by the parent alone, and reading it ends when the parent does.
    reader = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    await reader.read()
    stop.set()


def main() -> None:
    """Run one worker; started by the parent only."""
    import uvloop

    from gateway.telemetry.logs import configure_logs

    settings = load_settings()
    configure_logs(settings.log_level, settings.log_format)
    uvloop.run(_work())


if __name__ == "__main__":
    main()
