"""A TCP port of the loopback address that nobody listens on."""

from __future__ import annotations

import socket


def free_port() -> int:
    """A port the kernel hands out as free now. Prefer binding port 0 yourself; this is for programs that want a number."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
