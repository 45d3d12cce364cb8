"""`emberlog serve`: one gateway in this process, or a parent with several worker processes on one listening socket."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import sys
from collections.abc import Callable
from contextlib import closing

import structlog
from prometheus_client import CollectorRegistry

from gateway.app import build_app
from gateway.first_start import prepare_installation
from gateway.gateway import Gateway
from gateway.house import House, NotReady, fetch_local_model, open_house
from gateway.server import Server, listen
from gateway.settings import Settings
from gateway.telemetry.watch import watch_sessions
from gateway.wire.sessions import SessionRegistry, WireSettings
from gateway.workers import run_workers

_log = structlog.get_logger("emberlog.serve")


def stop_on_signals() -> asyncio.Event:
    """An event that SIGTERM and SIGINT set; a second signal ends the process at once."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()

    def on_signal() -> None:
        if stop.is_set():
            os._exit(130)
        stop.set()

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, on_signal)
    return stop


def _listen(settings: Settings) -> socket.socket:
    try:
        return listen(*settings.host_port)
    except OSError as error:
        raise NotReady(
            f"listen: {settings.listen} cannot be taken ({error.strerror}): stop what listens there, or set EMBERLOG_LISTEN to another address"
        ) from None


async def serve(settings: Settings) -> None:
    """Run until SIGTERM or SIGINT, then drain. Raises `NotReady` and `DataFolderInUse`."""
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


async def run_gateway(
    settings: Settings, house: House, listener: socket.socket, stop: asyncio.Event, ready: Callable[[], None]
) -> None:
    """One gateway on this listening socket until `stop`; `ready` is called once it answers. Then it is drained and closed."""
    gateway = await Gateway.open(settings, house.places, house.master)
    try:
        metrics = CollectorRegistry()
        for collector in (gateway.metrics, gateway.provider_metrics, gateway.gauges):
            metrics.register(collector)
        registry = SessionRegistry(
            gateway, WireSettings(drain_seconds=settings.drain_seconds, max_connections=settings.max_connections)
        )
        watch_sessions(gateway.gauges, registry)
        server = Server(
            build_app(gateway, metrics, registry),
            tls_cert=settings.tls_cert,
            tls_key=settings.tls_key,
            trusted_proxies=settings.trusted_proxies,
        )

        async def drain() -> None:
            _log.info("draining", in_flight=gateway.in_flight)
            gateway.refuse_new()
            await asyncio.gather(registry.drain(), gateway.drain())

        await server.serve_until(stop, [listener], drain=drain, ready=ready)
    finally:
        await gateway.close()


def announce_listening(settings: Settings, listener: socket.socket) -> None:
    """The line on standard output that scripts wait for."""
    host, port = listener.getsockname()[:2]
    shown = f"[{host}]" if ":" in host else host
    print(f"listening on {'https' if settings.tls_cert else 'http'}://{shown}:{port}", flush=True)
    if sys.stdout.isatty():
        print("stop with Ctrl-C: requests in flight are finished first", file=sys.stderr)
