"""The uvicorn server as this gateway runs it: our sockets, our WebSocket transport, and signals left to us.

uvicorn by itself closes every WebSocket with 1012 on SIGTERM before the application hears of it; here the caller decides when to
stop, sessions are drained first, and only then the server goes.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Awaitable, Callable, Generator, Sequence
from email.utils import formatdate
from pathlib import Path

import uvicorn
from starlette.types import ASGIApp

from gateway.http.protocol import HttpProtocol
from gateway.wire.transport import WireTransport

_BACKLOG = 2048


def listen(host: str, port: int, *, reuse_port: bool = False) -> socket.socket:
    """A listening TCP socket, ready before anything slow starts. Port 0 picks a free one. Raises OSError where it is taken."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if reuse_port:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        listener.bind((host, port))
        listener.listen(_BACKLOG)
        listener.setblocking(False)
    except OSError:
        listener.close()
        raise
    return listener


class Server(uvicorn.Server):
    """Serves an application on given sockets until told to stop.

    `trusted_proxies`: addresses or networks whose X-Forwarded-For and X-Forwarded-Proto are believed; none by default.
    """

    def __init__(
        self,
        app: ASGIApp,
        *,
        tls_cert: Path | None = None,
        tls_key: Path | None = None,
        trusted_proxies: Sequence[str] = (),
        shutdown_seconds: float = 5.0,
    ) -> None:
        super().__init__(
            uvicorn.Config(
                app,
                http=HttpProtocol,
                ws=WireTransport,
                ws_ping_interval=None,
                ws_ping_timeout=None,
                ws_per_message_deflate=False,
                lifespan="off",
                interface="asgi3",
                log_config=None,
                access_log=False,
                log_level="warning",
                server_header=False,
                proxy_headers=bool(trusted_proxies),
                forwarded_allow_ips=list(trusted_proxies),
                ssl_certfile=str(tls_cert) if tls_cert is not None else None,
                ssl_keyfile=str(tls_key) if tls_key is not None else None,
                timeout_graceful_shutdown=max(1, round(shutdown_seconds)),
                backlog=_BACKLOG,
                # Longer than HTTP clients keep idle connections, so that it is they who close them.
                timeout_keep_alive=75,
            )
        )

    @contextlib.contextmanager
    def capture_signals(self) -> Generator[None, None, None]:
        """Leave signals alone."""
        yield

    async def serve_until(
        self,
        stop: asyncio.Event,
        sockets: Sequence[socket.socket],
        *,
        drain: Callable[[], Awaitable[object]] | None = None,
        ready: Callable[[], None] | None = None,
    ) -> None:
        """Serve on `sockets` (closed at the end) until `stop` is set, then `drain` sessions, then finish HTTP requests and return.

        `ready` is called once connections are being answered. New connections are refused by the application while it drains, so
        that their clients get a reason; the sockets close after that.
        """
        config = self.config
        if not config.loaded:
            config.load()
        self.lifespan = config.lifespan_class(config)
        await self.startup(sockets=list(sockets))
        self._date()
        clock = asyncio.get_running_loop().create_task(self._keep_date())
        try:
            if ready is not None:
                ready()
            await stop.wait()
            if drain is not None:
                await drain()
        finally:
            clock.cancel()
            await self.shutdown(sockets=list(sockets))

    async def _keep_date(self) -> None:
        while True:
            await asyncio.sleep(1)
            self._date()

    def _date(self) -> None:
        self.server_state.default_headers = [(b"date", formatdate(usegmt=True).encode()), *self.config.encoded_headers]
