"""All sessions of a process: their limits, one periodic sweep for all of them, and the drain before a restart."""

from __future__ import annotations

import asyncio
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING

import msgspec
import structlog

from domain.errors import GatewayError
from domain.tenancy import Principal
from gateway.wire.link import LinkSettings
from gateway.wire.service import EmbeddingService

if TYPE_CHECKING:
    from gateway.wire.session import Session

_log = structlog.get_logger("emberlog.sessions")


class WireSettings(msgspec.Struct, frozen=True):
    """Times in seconds unless the name says otherwise; limits on connections are None where there are none."""

    open_seconds: float = 5.0
    sweep_seconds: float = 0.25
    drain_seconds: float = 30.0
    reconnect_after_ms: int = 1000
    unauthenticated_bytes: int = 64 * 1024
    max_connections: int | None = None
    max_connections_per_tenant: int | None = None
    link: LinkSettings = LinkSettings()


class SessionRegistry:
    """The sessions of this process."""

    def __init__(self, service: EmbeddingService, settings: WireSettings | None = None) -> None:
        self.settings = settings or WireSettings()
        self.sessions: set[Session] = set()
        self.draining = False
        self.opened_total = 0
        self.server = {"name": "emberlog", "version": _version()}
        self._service = service
        self._sweep: asyncio.TimerHandle | None = None
        self._empty = asyncio.Event()
        self._empty.set()

    def add(self, session: Session) -> None:
        """A connection was accepted."""
        self.sessions.add(session)
        self.opened_total += 1
        self._empty.clear()
        if self._sweep is None:
            self._sweep = asyncio.get_running_loop().call_later(self.settings.sweep_seconds, self._tick)

    def remove(self, session: Session) -> None:
        """A connection is gone."""
        self.sessions.discard(session)
        if not self.sessions:
            self._empty.set()

    def counts(self) -> dict[str, int]:
        """For metrics: connections, those with an open session, requests and bytes that wait."""
        sessions = self.sessions
        return {
            "connections": len(sessions),
            "sessions": sum(1 for s in sessions if s.agent is not None),
            "in_flight": sum(s.in_flight for s in sessions),
            "buffered_bytes": sum(s.link.buffered for s in sessions),
        }

    def full(self) -> bool:
        """Whether the process has as many connections as it may."""
        limit = self.settings.max_connections
        return limit is not None and len(self.sessions) >= limit

    def tenant_full(self, tenant: str | None, but: Session | None = None) -> bool:
        """Whether the tenant has as many connections as it may, `but` not counted."""
        limit = self.settings.max_connections_per_tenant
        if limit is None:
            return False
        held = sum(
            1 for s in self.sessions if s is not but and s.principal is not None and s.principal.tenant == tenant
        )
        return held >= limit

    def draining_error(self) -> GatewayError:
        """What new requests are told."""
        wait = self.settings.reconnect_after_ms
        return GatewayError(
            "draining", "the server restarts: reconnect and send the request again", retry_after_ms=wait
        )

    async def drain(self, seconds: float | None = None) -> bool:
        """Refuse new requests, let those in flight finish for at most so long, close with 1012. True if all were answered in time."""
        self.draining = True
        for session in list(self.sessions):
            session.drain(self.settings.reconnect_after_ms)
        finished = await self._wait_empty(self.settings.drain_seconds if seconds is None else seconds)
        for session in list(self.sessions):
            session.shut(1012, "the server restarts")
        if not await self._wait_empty(self.settings.link.close_seconds + self.settings.sweep_seconds):
            for session in list(self.sessions):
                session.link.abort()
        return finished

    async def _wait_empty(self, seconds: float) -> bool:
        try:
            async with asyncio.timeout(seconds):
                await self._empty.wait()
        except TimeoutError:
            return False
        return True

    def _tick(self) -> None:
        """Every credential is asked about once, however many sessions it has."""
        self._sweep = None
        if not self.sessions:
            return
        loop = asyncio.get_running_loop()
        now = loop.time()
        known: dict[Principal, bool] = {}
        for session in list(self.sessions):
            try:
                principal = session.principal
                if principal is None:
                    valid = True
                elif principal in known:
                    valid = known[principal]
                else:
                    valid = known[principal] = self._service.valid(principal)
                session.tick(now, valid=valid)
            except Exception as failure:
                _log.error("a session failed its periodic check and was dropped", session=session.id, exc_info=failure)
                session.link.abort()
        self._sweep = loop.call_later(self.settings.sweep_seconds, self._tick)


def _version() -> str:
    try:
        return version("emberlog")
    except PackageNotFoundError:
        return "0"
