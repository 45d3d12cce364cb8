"""The management API in the test's loop, on a log in memory: no socket, no database."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, cast
from uuid import UUID

import httpx2 as httpx
from prometheus_client import CollectorRegistry

from adapters.memory.event_log import MemoryEventLog
from domain.catalogue import Endpoint
from domain.cursor import decode_cursor, encode_cursor
from domain.endpoints import serving
from domain.events import EventData, TenantCreated
from domain.plane import ControlPlane
from domain.ports.event_log import ANY_VERSION, Appended, NewEvent, StoredEvent
from domain.ports.provider import Provider
from domain.tenancy import Principal
from gateway.app import build_app
from gateway.collections.desk import CollectionDesk
from gateway.collections.searching import Searcher
from gateway.control import Control
from gateway.credential_admin import CredentialAdmin
from gateway.decisions import decision_event
from gateway.dispatch.dispatcher import LaneGauge
from gateway.endpoints.deployments import Deployments
from gateway.endpoints.desk import EndpointDesk
from gateway.endpoints.pool import EndpointPool
from gateway.reads.reads import Reads
from gateway.tail import PlaneTail
from tests.support.credentials import MemorySecrets
from tests.support.vector_tables import MemoryVectorTables
from tests.unit.wire.fake_service import FakeService


class MemoryBacking:
    """Decisions go to a log in memory. `before` runs once ahead of the next append: what another process does meanwhile."""

    def __init__(self, log: MemoryEventLog, plane: ControlPlane, instance: UUID) -> None:
        self.log = log
        self.instance = instance
        self.before: list[NewEvent] = []
        self.observers: list[Callable[[EventData], None]] = []
        self._tail = PlaneTail(log, plane, self._observe)

    async def _observe(self, event: StoredEvent, data: EventData) -> None:
        for observe in self.observers:
            observe(data)

    async def append(self, events: Sequence[NewEvent]) -> list[Appended]:
        if self.before:
            between, self.before = self.before, []
            await self.log.append(self.instance, between)
        return await self.log.append(self.instance, events)

    async def reach(self, position: int) -> None:
        await self._tail.catch_up()

    async def catch_up(self) -> None:
        await self._tail.catch_up()


class _Cursors:
    """The part of `Reads` that a log in memory can do."""

    def __init__(self, log: MemoryEventLog) -> None:
        self._log = log
        self.views = _Views()

    @asynccontextmanager
    async def view(self, asker: Principal) -> AsyncIterator[_Views]:
        yield self.views

    async def cursor(self, position: int) -> str:
        return encode_cursor((await self._log.identity()).incarnation, position)

    async def position(self, cursor: str, field: str) -> int:
        return decode_cursor(cursor, (await self._log.identity()).incarnation, await self._log.head())


class _Views:
    """Of the views, what `QuotaReport`s are made of: `used` by (scope, subject, unit) of what the quota view would say."""

    def __init__(self) -> None:
        self.used: dict[tuple[str, str, str], int] = {}

    async def fetch(
        self, query: str, tenant: str, scopes: list[str], subjects: list[str], units: list[str], periods: list[str]
    ) -> list[dict[str, Any]]:
        keys = zip(scopes, subjects, units, strict=True)
        return [{"used": self.used.get(key, 0), "reserved": 0, "position": 1, "recorded_at": None} for key in keys]


async def _attested(endpoint: Endpoint, model: str) -> bool:
    return False


class ApiSite:
    """The tenants acme and other exist. Keys are `tests.unit.wire.fake_service`'s."""

    def __init__(self, service: FakeService, log: MemoryEventLog, backing: MemoryBacking) -> None:
        self.service = service
        self.log = log
        self.backing = backing
        self.secrets = MemorySecrets()
        service.credentials = CredentialAdmin(service.control.plane, self.secrets)
        self.vectors = MemoryVectorTables()
        service.collections = CollectionDesk(service.control.plane, self.vectors)
        service.searches = Searcher(service.control.plane, self.vectors, service.generate)
        self.endpoints = [Endpoint("main", "fake", {"tiny": ""}, base_url="https://user:word@main.test/v1?key=secret")]
        service.endpoint_desk = EndpointDesk(
            service.control.plane,
            endpoints=lambda: serving(self.endpoints, service.control.plane.endpoints),
            configured=["main"],
            provider_of=lambda endpoint: self.providers[endpoint.name],
            append=lambda event: backing.append([event]),
            instance=lambda: "here",
            lanes=lambda: self.lanes,
        )
        self.providers: dict[str, Provider] = {}
        self.lanes: list[LaneGauge] = []
        backing.observers.append(service.endpoint_desk.observe)
        self.pool = EndpointPool(
            service.control.plane.endpoints, [], environ={}, store=Path("unused"), secrets=self.secrets
        )
        self.attest: Callable[[Endpoint, str], Awaitable[bool]] = _attested
        self.max_calls = 100
        self.live = {"gateway-1"}
        service.deployments = self.deployments("gateway-1")
        self.used = cast("_Cursors", service.reads).views.used
        self.plane = service.control.plane
        transport = httpx.ASGITransport(app=build_app(service, CollectorRegistry()), raise_app_exceptions=False)
        self.http = httpx.AsyncClient(transport=transport, base_url="http://test")

    def deployments(self, instance: str) -> Deployments:
        """Those of this site as a gateway instance works at them."""

        async def live() -> set[str]:
            return self.live

        return Deployments(
            self.service.control,
            self.pool,
            instance=lambda: instance,
            live=live,
            attest=lambda endpoint, model: self.attest(endpoint, model),
            max_calls=lambda: self.max_calls,
        )

    async def ask(self, method: str, path: str, key: str, json: Any = None, **query: Any) -> httpx.Response:
        headers = {"authorization": f"Bearer {key}"}
        if json is None:
            return await self.http.request(method, path, params=query, headers=headers)
        return await self.http.request(method, path, params=query, headers=headers, json=json)

    async def given(self, tenant: str, stream: str, *data: EventData) -> None:
        """Decisions that were taken before."""
        await self.backing.append([decision_event(tenant, stream, d, ANY_VERSION) for d in data])
        await self.backing.catch_up()


@asynccontextmanager
async def api_site() -> AsyncIterator[ApiSite]:
    """The site, for the time of a test."""
    log, plane = MemoryEventLog(), ControlPlane()
    backing = MemoryBacking(log, plane, await log.register_instance("test", 600))
    service = FakeService()
    service.control = Control(plane, backing)
    service.reads = cast("Reads", _Cursors(log))
    site = ApiSite(service, log, backing)
    for name in ("acme", "other"):
        await site.given(name, f"tenant/{name}", TenantCreated(tenant=name))
    async with site.http:
        yield site
    await service.deployments.close()
    await site.pool.close()
