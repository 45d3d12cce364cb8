"""One gateway on one listening socket, from its start to the end of its drain."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
from collections.abc import Callable

import msgspec
import structlog
from prometheus_client import CollectorRegistry

from gateway.app import build_app
from gateway.errorlog import ToldErrors
from gateway.gateway import Gateway
from gateway.house import House
from gateway.server import Server
from gateway.settings import Settings
from gateway.telemetry.watch import watch_sessions
from gateway.wire.sessions import SessionRegistry, WireSettings

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


async def run_gateway(
    settings: Settings, house: House, listener: socket.socket, stop: asyncio.Event, ready: Callable[[], None]
) -> None:
    """One gateway on this listening socket until `stop`; `ready` is called once it answers. Then it is drained and closed."""
    gateway = await Gateway.open(settings, house.places, house.master)
    try:
        metrics = CollectorRegistry()
        for collector in (
            gateway.metrics,
            gateway.provider_metrics,
            gateway.discovery_metrics,
            gateway.gauges,
            ToldErrors(),
        ):
            metrics.register(collector)
        registry = SessionRegistry(gateway, WireSettings())

        def bound(now: Settings) -> None:
            registry.settings = msgspec.structs.replace(
                registry.settings, drain_seconds=now.drain_seconds, max_connections=now.max_connections
            )

        gateway.on_settings(bound)
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
