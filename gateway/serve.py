"""`emberlog serve`: one gateway in this process, or a parent with several worker processes on one listening socket."""

from __future__ import annotations

import socket
import sys
from contextlib import closing

from gateway.first_start import prepare_installation
from gateway.house import NotReady, check_endpoints, check_issuers, fetch_local_model, open_house
from gateway.running import run_gateway, stop_on_signals
from gateway.server import listen
from gateway.settings import Settings
from gateway.workers import run_workers


async def serve(settings: Settings) -> None:
    """Run until SIGTERM or SIGINT, then drain. Raises `NotReady` and `DataFolderInUse`."""
    check_endpoints(settings)
    check_issuers(settings)
    stop = stop_on_signals()
    async with open_house(settings) as house:
        with closing(_listen(settings)) as listener:
            await fetch_local_model(settings)
            if settings.embedded_postgres:
                await prepare_installation(house)
            if stop.is_set():
                return
            if settings.workers > 1:
                await run_workers(settings, house, listener, stop, lambda: announce_listening(settings, listener))
            else:
                await run_gateway(settings, house, listener, stop, lambda: announce_listening(settings, listener))


def _listen(settings: Settings) -> socket.socket:
    try:
        return listen(*settings.host_port)
    except OSError as error:
        raise NotReady(
            f"listen: {settings.listen} cannot be taken ({error.strerror}): stop what listens there, or set EMBERLOG_LISTEN to another address"
        ) from None


def announce_listening(settings: Settings, listener: socket.socket) -> None:
    """The line on standard output that scripts wait for."""
    host, port = listener.getsockname()[:2]
    shown = f"[{host}]" if ":" in host else host
    print(f"listening on {'https' if settings.tls_cert else 'http'}://{shown}:{port}", flush=True)
    if sys.stdout.isatty():
        print("stop with Ctrl-C: requests in flight are finished first", file=sys.stderr)
