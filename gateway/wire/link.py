"""What a session sees of its connection, and what the connection asks of its session."""

from __future__ import annotations

from typing import Protocol

import msgspec

MIB = 1024 * 1024


class LinkSettings(msgspec.Struct, frozen=True):
    """Times in seconds, sizes in bytes.

    Above `high_water` of unsent bytes the connection is not read from. Above `max_buffered` it has `drain_seconds` to get below
    again; twice `max_buffered` is never passed. A peer that takes no byte for `stall_seconds` while some wait is as slow. A slow
    consumer is closed with 4413, and aborted `slow_close_seconds` later: 2.5 + 1 s keep a zero receive window well below 5 s.
    """

    ping_interval: float = 20.0
    ping_timeout: float = 20.0
    high_water: int = 4 * MIB
    max_buffered: int = 32 * MIB
    drain_seconds: float = 1.0
    stall_seconds: float = 2.5
    slow_close_seconds: float = 1.0
    close_seconds: float = 2.0


class LinkHandler(Protocol):
    """A session. Called on the loop; must not block or raise."""

    def on_message(self, data: bytes) -> None:
        """A whole binary message."""
        ...

    def on_lost(self) -> None:
        """The connection is gone; called once, last."""
        ...


class Link(Protocol):
    """One accepted WebSocket connection."""

    @property
    def closing(self) -> bool:
        """Whether a close frame was sent or received, or the connection is gone: nothing more can be sent."""
        ...

    @property
    def buffered(self) -> int:
        """Bytes that wait to be taken by the peer."""
        ...

    def attach(self, handler: LinkHandler, settings: LinkSettings, max_size: int) -> None:
        """Give messages of at most `max_size` bytes to `handler` from now on. Called once, right after the upgrade was accepted."""
        ...

    def limit(self, max_size: int) -> None:
        """Change the largest message that is taken."""
        ...

    def write(self, payload: bytes) -> None:
        """Send a binary message. Messages of one turn of the loop leave in one write. Dropped when closing."""
        ...

    def close(self, code: int, reason: str = "", *, within: float | None = None) -> None:
        """Send what waits, then a close frame; abort unless the peer has closed within so many seconds."""
        ...

    def abort(self) -> None:
        """Drop the connection and what waits at once."""
        ...

    def tick(self, now: float) -> None:
        """Keepalive and slow-consumer checks; called a few times a second with the loop's time."""
        ...

    async def wait_closed(self) -> None:
        """Return when the connection is gone."""
        ...
