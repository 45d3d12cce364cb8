"""A server in the test's loop whose reads go to a real database."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any
from uuid import uuid4

import httpx2 as httpx

from adapters.memory.event_log import MemoryEventLog
from adapters.postgres.event_log import PostgresEventLog
from domain.events import TenantCreated
from domain.plane import ControlPlane
from domain.tenancy import Directory
from gateway.control import Control
from gateway.reads.reads import Reads
from projections.projection import Projection
from projections.runner import Runner
from projections.usage import USAGE
from tests.support.api import MemoryBacking
from tests.support.databases import with_user
from tests.unit.wire.fake_service import FakeService
from tests.unit.wire.harness import QUICK, Gateway


class Site:
    """The server's log, its runner (started where the test wants it) and a client. The tenants acme and other are known."""

    def __init__(self, log: PostgresEventLog, runner: Runner, gateway: Gateway, http: httpx.AsyncClient) -> None:
        self.log = log
        self.runner = runner
        self.gateway = gateway
        self.http = http

    async def get(self, path: str, key: str, headers: dict[str, str] | None = None, **query: Any) -> httpx.Response:
        """GET with a key; `from_` stands for `from`."""
        parameters = {name.rstrip("_"): value for name, value in query.items()}
        return await self.http.get(
            path, params=parameters, headers={"authorization": f"Bearer {key}", **(headers or {})}
        )


@asynccontextmanager
async def reading_site(owner_dsn: str, *views: Projection) -> AsyncIterator[Site]:
    """The site on this database; its runner folds usage and `views`."""
    views = (USAGE, *views)
    dsn = with_user(owner_dsn, "emberlog_gateway")
    directory = Directory()
    for name in ("acme", "other"):
        directory.apply(0, name, TenantCreated(tenant=name))
    async with AsyncExitStack() as stack:
        log = await PostgresEventLog.connect(dsn, pool_size=1, readers=1)
        stack.push_async_callback(log.close)
        runner = Runner(dsn, views, poll_seconds=0.02)
        stack.push_async_callback(runner.stop)
        service = FakeService()
        service.reads = await Reads.open(log, dsn, runner, directory)
        plane = ControlPlane()
        plane.directory = directory
        service.control = Control(plane, MemoryBacking(MemoryEventLog(), plane, uuid4()))
        stack.push_async_callback(service.reads.close)
        gateway = await stack.enter_async_context(Gateway(service, QUICK).running())
        http = await stack.enter_async_context(
            httpx.AsyncClient(base_url=f"http://127.0.0.1:{gateway.port}", trust_env=False)
        )
        yield Site(log, runner, gateway, http)
