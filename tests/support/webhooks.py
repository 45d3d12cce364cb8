"""An installation's webhooks without a gateway: a log, its control plane, a sender, and the ways to make webhooks."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any
from uuid import UUID

from adapters.postgres.event_log import PostgresEventLog
from adapters.postgres.event_scan import EventScan
from adapters.webhooks.http import WebhookClient
from domain.events import EventData
from domain.facts import tenant_fact
from domain.plane import ControlPlane
from domain.ports.event_log import Appended, NewEvent, StoredEvent
from domain.webhooks import Webhook, webhook_stream
from gateway.control import Control
from gateway.secrets import MasterKey
from gateway.tail import PlaneTail
from gateway.webhooks.manage import WebhookAdmin
from gateway.webhooks.secrets import WebhookSecrets
from gateway.webhooks.sender import SenderPorts, WebhookSender
from tests.support.alerting import raised

MASTER = MasterKey(b"m" * 32)
KEYS = {"acme": b"a" * 32, "other": b"o" * 32}


async def _nothing(_: object, __: object) -> None:
    pass


class House:
    """Made by `house`. `unwanted` holds the ids of events that are not to be delivered."""

    def __init__(self, log: PostgresEventLog, instance: UUID, scan: EventScan, client: WebhookClient) -> None:
        self.log = log
        self.instance = instance
        self.plane = ControlPlane()
        self.tail = PlaneTail(log, self.plane, _nothing)
        self.control = Control(self.plane, self)
        self.secrets = WebhookSecrets(log.pool, MASTER, KEYS)
        self.admin = WebhookAdmin(log.pool, self.plane, self.secrets, allow_private=True)
        self.unwanted: set[bytes] = set()
        self.scan = scan
        self._client = client
        self._number = 0

    async def append(self, events: Sequence[NewEvent]) -> list[Appended]:
        return await self.log.append(self.instance, events)

    async def reach(self, _: int) -> None:
        await self.tail.catch_up()

    async def catch_up(self) -> None:
        await self.tail.catch_up()

    async def take(self, stream: str, decide: Any) -> Any:
        return await self.control.run(decide, stream=stream)

    async def webhook(
        self, url: str, tenant: str | None = "acme", types: Sequence[str] = ("alert.*",)
    ) -> tuple[Webhook, str]:
        """A new webhook and its secret."""
        made = await self.admin.create(self.take, tenant, url=url, types=list(types), webhook=None, actor="test")
        assert made.secret is not None
        return self.plane.webhooks.find(made.id, tenant), made.secret

    async def alert(self, tenant: str = "acme", data: EventData | None = None) -> UUID:
        """Something to deliver; returns the event's id."""
        self._number += 1
        data = data or raised(f"al{self._number}")
        _, stream = webhook_stream(tenant)
        event = tenant_fact(tenant, stream, data, f"{tenant}/{self._number}", self._number)
        await self.append([event])
        return UUID(bytes=event.event_id)

    async def _append_one(self, event: NewEvent) -> object:
        return await self.append([event])

    async def _unwanted(self, event: StoredEvent) -> bool:
        return event.event_id in self.unwanted

    def sender(self, schedule: Sequence[float] = (0.0, 0.0), lease_seconds: float = 10.0) -> WebhookSender:
        """Another sender of this house."""
        ports = SenderPorts(
            self.log.pool, self.log, self.scan, self.control, self.secrets, self._client, self._append_one, self._unwanted
        )  # fmt: skip
        return WebhookSender(ports, schedule=schedule, poll_seconds=0.02, lease_seconds=lease_seconds)


@asynccontextmanager
async def house(log: PostgresEventLog, instance: UUID, dsn: str, *, timeout: float = 5.0) -> AsyncIterator[House]:
    """A house upon a log."""
    scan, client = await EventScan.open(log, dsn), WebhookClient(allow_private=True, timeout=timeout)
    try:
        yield House(log, instance, scan, client)
    finally:
        await client.close()
        await scan.close()


@asynccontextmanager
async def at_work(*senders: WebhookSender) -> AsyncIterator[None]:
    """The senders run."""
    tasks = [asyncio.create_task(sender.run()) for sender in senders]
    try:
        yield
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
