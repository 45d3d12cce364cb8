"""Keeps a connection to the gateway, through restarts, drains and broken networks."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from copy import copy

from . import backoff
from .errors import ConnectionFailed, EmberlogError
from .link import Address, Link, NotNow
from .types import Session


class Connector:
    """Owns every connection of a client: the one for new requests, and drained ones that still answer old requests.

    A lost connection is replaced at once, then with exponential backoff and jitter, for as long as the client is open.
    What cannot be cured by trying again (a refused key) ends the attempts; the next request starts them anew.
    """

    def __init__(self, address: Address, on_session: Callable[[Session], None]) -> None:
        self._address = address
        self._on_session = on_session
        self._link: Link | None = None
        self._links: set[Link] = set()
        self._connecting: asyncio.Task[Link | EmberlogError] | None = None
        self._failures = 0
        self._closing = False
        self.last_failure = "no connection was attempted yet"

    @property
    def connected(self) -> bool:
        """Whether a connection takes requests now."""
        return self._link is not None and self._link.usable

    async def current(self) -> Link:
        """The connection for new requests, as soon as there is one. Raises what makes further attempts useless."""
        while True:
            if self._closing:
                raise ConnectionFailed("the client is closed")
            if self._link is not None and self._link.usable:
                return self._link
            task = self._start(0.0)
            try:
                outcome = await asyncio.shield(task)
            except asyncio.CancelledError:
                if task.cancelled() and self._closing:
                    raise ConnectionFailed("the client is closed") from None
                raise
            if isinstance(outcome, EmberlogError):
                raise copy(outcome)

    async def close(self) -> None:
        """Close everything. Requests in flight fail with `ConnectionFailed`."""
        self._closing = True
        if self._connecting is not None:
            self._connecting.cancel()
            await asyncio.wait([self._connecting])
        await asyncio.gather(*(link.close() for link in list(self._links)))

    def opened(self, link: Link, session: Session) -> None:
        """See `Owner`."""
        self._on_session(session)

    def draining(self, link: Link) -> None:
        """See `Owner`."""
        assert link.drain_delay is not None
        self._leave(link, backoff.stretched(link.drain_delay))

    def lost(self, link: Link) -> None:
        """See `Owner`."""
        self._links.discard(link)
        self.last_failure = "the connection was lost"
        if link.fatal is None:
            self._leave(link, 0.0)
        elif link is self._link:
            self._link = None

    def _leave(self, link: Link, wait: float) -> None:
        if link is not self._link:
            return
        self._link = None
        self._failures = 0 if link.proved else self._failures + 1
        if not self._closing:
            self._start(wait)

    def _start(self, wait: float) -> asyncio.Task[Link | EmberlogError]:
        if self._connecting is None or self._connecting.done():
            self._connecting = asyncio.get_running_loop().create_task(
                self._connect(max(wait, backoff.delay(self._failures))), name="emberlog-client-connect"
            )
        return self._connecting

    async def _connect(self, wait: float) -> Link | EmberlogError:
        while True:
            if wait:
                await asyncio.sleep(wait)
            try:
                link = await Link.open(self._address, self)
            except NotNow as failure:
                self.last_failure = str(failure)
                self._failures += 1
                wait = max(backoff.stretched(failure.retry_after), backoff.delay(self._failures))
                continue
            except EmberlogError as error:
                return error
            if link.fatal is not None:
                return link.fatal
            if link.closed:
                self._failures += 1
                wait = backoff.delay(self._failures)
                continue
            self._links.add(link)
            self._link = link
            if not link.usable:  # it drains as soon as it is connected to: a failed attempt
                self._link = None
                self._failures += 1
            return link
