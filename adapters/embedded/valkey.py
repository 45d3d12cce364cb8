"""Valkey as the gateway needs it: a cache on a Unix socket, nothing on disk, bounded, the least recently used leaves first."""

from __future__ import annotations

import asyncio
import contextlib
import signal
from collections.abc import Sequence
from pathlib import Path

from adapters.embedded.errors import ServiceFailed
from adapters.embedded.layout import Layout
from adapters.embedded.processes import find, send, until_gone
from adapters.embedded.service import OnEvent, Service


class ValkeyService(Service):
    """`valkey-server` on `layout.valkey_socket`, at most `maxmemory_mb` MiB of data."""

    name = "valkey"
    stop_signal = signal.SIGTERM
    urgent_signal = signal.SIGKILL
    ready_timeout_s = 20.0
    stop_timeout_s = 3.0

    def __init__(self, layout: Layout, program: Path, maxmemory_mb: int, on_event: OnEvent | None) -> None:
        super().__init__(layout.account, layout.log("valkey"), on_event)
        self._socket = layout.valkey_socket
        self._program = program
        self._maxmemory_mb = maxmemory_mb

    @property
    def url(self) -> str:
        """The connection URL, as redis clients read it."""
        return f"unix://{self._socket}?db=0"

    def command(self) -> list[str]:
        """The title stays the command line, so that the socket's path tells this server from any other."""
        settings = {
            "port": "0",
            "unixsocket": str(self._socket),
            "unixsocketperm": "700",
            "save": "",
            "appendonly": "no",
            "maxmemory": f"{self._maxmemory_mb}mb",
            "maxmemory-policy": "allkeys-lru",
            "daemonize": "no",
            "set-proc-title": "no",
            "dir": str(self._socket.parent),
            "loglevel": "warning",
        }
        return [str(self._program), *(word for name, value in settings.items() for word in (f"--{name}", value))]

    async def clear_the_way(self) -> None:
        """End what is left of an earlier life and its socket."""
        await self.end_orphans()
        self._socket.unlink(missing_ok=True)

    async def end_orphans(self) -> None:
        """End a Valkey that an earlier supervisor left on our socket. It holds nothing that must survive."""
        orphans = find(self._is_ours)
        if not orphans:
            return
        send(orphans, signal.SIGTERM)
        if not await until_gone(self._is_ours, 2.0):
            send(orphans, signal.SIGKILL)
            if not await until_gone(self._is_ours, 5.0):
                raise ServiceFailed(f"a Valkey of an earlier start (pid {orphans[0]}) does not end: end it by hand")
        self._report("orphan_ended", f"ended the Valkey of an earlier start (pid {orphans[0]})")

    async def answers(self) -> bool:
        """One PING over the socket."""
        try:
            reader, writer = await asyncio.open_unix_connection(str(self._socket))
        except OSError:
            return False
        try:
            writer.write(b"PING\r\n")
            async with asyncio.timeout(1.0):
                return (await reader.readline()).startswith(b"+PONG")
        except (OSError, TimeoutError):
            return False
        finally:
            writer.close()
            with contextlib.suppress(OSError):
                await writer.wait_closed()

    def _is_ours(self, argv: Sequence[str]) -> bool:
        return Path(argv[0]).name == "valkey-server" and str(self._socket) in argv
