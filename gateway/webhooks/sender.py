"""The sender of webhooks: one process of an installation delivers what is due, the others stand by for it.

Each webhook has its own deliveries under way, in the order of the log at their first try; one that fails has a single try under way at a
time, and all that fail share a part of the whole, so that slow receivers hold up nobody else.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Awaitable, Callable, Collection, Sequence
from contextlib import suppress
from datetime import timedelta
from uuid import UUID, uuid4

import msgspec
import structlog

from adapters.postgres import deliveries, followers
from adapters.postgres.deliveries import Due
from adapters.postgres.event_scan import EventScan
from adapters.postgres.pool import UNREACHABLE, Pool
from adapters.webhooks import signing
from adapters.webhooks.http import TIMEOUT_SECONDS, Tried, WebhookClient
from domain.errors import GatewayError
from domain.events import WebhookDeliveryFailed
from domain.ports.event_log import EventLog, LogDamaged, NewEvent, StoredEvent
from domain.upcasters import UnknownSchema
from domain.webhooks import Webhook, decide_delete, delivery_failed, webhook_stream
from gateway.control import Control
from gateway.version import server_version
from gateway.webhooks.backoff import SCHEDULE, pause
from gateway.webhooks.message import message
from gateway.webhooks.planner import Planner
from gateway.webhooks.secrets import WebhookSecrets
from projections.worker import reason

_log = structlog.get_logger("emberlog.webhooks")
NAME = "webhooks"
LEASE_SECONDS = 10.0
POLL_SECONDS, REST_SECONDS = 1.0, 0.1
SWEEP_SECONDS, COUNT_SECONDS = 300.0, 10.0
AT_ONCE, AT_ONCE_FAILING = 192, 64
"""Tries under way at once: to receivers whose last try succeeded, and to others."""
AT_ONCE_EACH = 4
KEEP_DELIVERED, KEEP_DEAD = timedelta(days=1), timedelta(days=30)
_HOLD = timedelta(seconds=TIMEOUT_SECONDS + 15)
"""A try whose process has died is made again after this long."""


class SenderPorts(msgspec.Struct, frozen=True):
    """What a sender works with. `unwanted` says of an event that it is not to be delivered any more."""

    pool: Pool
    log: EventLog
    scan: EventScan
    control: Control
    secrets: WebhookSecrets
    client: WebhookClient
    append: Callable[[NewEvent], Awaitable[object]]
    unwanted: Callable[[StoredEvent], Awaitable[bool]]


class WebhookSender:
    """Run one in each process: `run` until cancelled. `wake` when the log has grown. The rest is for metrics and for tests."""

    def __init__(
        self,
        ports: SenderPorts,
        *,
        schedule: Sequence[float] = SCHEDULE,
        poll_seconds: float = POLL_SECONDS,
        lease_seconds: float = LEASE_SECONDS,
    ) -> None:
        self.delivered = 0
        self.failed = 0
        self.counts: dict[str, int] = {}
        """How many deliveries wait and how many are dead, in the whole installation, when this process last looked."""
        self._ports = ports
        self._schedule = schedule
        self._poll_seconds = poll_seconds
        self._lease = timedelta(seconds=lease_seconds)
        self._owner = uuid4()
        self._grown, self._due = asyncio.Event(), asyncio.Event()
        self._tries: dict[asyncio.Task[None], str] = {}
        self._failing: set[str] = set()

    def wake(self) -> None:
        """The log has grown."""
        self._grown.set()

    async def run(self) -> None:
        """Deliver while no other process does, until cancelled."""
        while True:
            try:
                fence = await followers.take(self._ports.pool, NAME, self._owner, self._lease)
                if fence is not None:
                    await self._lead(fence)
            except Exception as error:
                # The database is away, mostly. Whatever it is, deliveries must go on once it has passed.
                _log.warning("webhooks_postponed", reason=reason(error))
            await asyncio.sleep(self._lease.total_seconds() / 4)

    async def _lead(self, fence: int) -> None:
        """Deliver until the lease is lost; raises what the database raises."""
        work = [asyncio.create_task(w) for w in (self._hold(fence), self._follow(), self._send(), self._sweep())]
        try:
            done, _ = await asyncio.wait(work, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                task.result()
            _log.warning("webhooks_taken_over")
        finally:
            for task in (*work, *self._tries):
                task.cancel()
            await asyncio.gather(*work, *self._tries, return_exceptions=True)
            self._failing.clear()
            with suppress(*UNREACHABLE):
                await followers.release(self._ports.pool, NAME, fence)

    async def _hold(self, fence: int) -> None:
        held = True
        while held:
            await asyncio.sleep(self._lease.total_seconds() / 3)
            held = await followers.renew(self._ports.pool, NAME, fence, self._lease)

    async def _follow(self) -> None:
        """Put down what the log has grown by. It rests in between: under load the log grows a hundred times a second."""
        ports = self._ports
        planner = Planner(ports.pool, ports.scan, lambda: self._webhooks)
        while True:
            self._grown.clear()
            if self._webhooks and await planner.plan():
                self._due.set()
            await _set_within(self._grown, self._poll_seconds)
            await asyncio.sleep(min(REST_SECONDS, self._poll_seconds))

    async def _send(self) -> None:
        """Begin tries for what is due, as far as there is room."""
        while True:
            self._due.clear()
            if room := self._room():
                claimed = await deliveries.claim(self._ports.pool, room, _HOLD)
                webhooks = {
                    due.webhook: self._webhooks[due.webhook] for due in claimed if due.webhook in self._webhooks
                }
                secrets = await self._ports.secrets.of(webhooks.values()) if claimed else {}
                events = await self._events({due.position for due in claimed})
                for due in claimed:
                    if (webhook := webhooks.get(due.webhook)) is None:
                        continue  # deleted; the sweep forgets it
                    work = self._try(due, webhook, events.get(due.position), secrets.get(webhook.id, []))
                    task = asyncio.create_task(work)
                    self._tries[task] = due.webhook
                    task.add_done_callback(self._tried)
            await _set_within(self._due, self._poll_seconds)

    async def _sweep(self) -> None:
        swept_at = float("-inf")
        while True:
            if time.monotonic() - swept_at > SWEEP_SECONDS:
                await deliveries.sweep(self._ports.pool, KEEP_DELIVERED, KEEP_DEAD, list(self._webhooks))
                swept_at = time.monotonic()
            self.counts = await deliveries.counts(self._ports.pool)
            await asyncio.sleep(COUNT_SECONDS)

    @property
    def _webhooks(self) -> dict[str, Webhook]:
        return self._ports.control.plane.webhooks.webhooks

    def _room(self) -> dict[str, int]:
        busy: dict[str, int] = {}
        for name in self._tries.values():
            busy[name] = busy.get(name, 0) + 1
        held_up = sum(name in self._failing for name in self._tries.values())
        left = {True: AT_ONCE_FAILING - held_up, False: AT_ONCE - len(self._tries) + held_up}
        room: dict[str, int] = {}
        names = list(self._webhooks)
        for name in random.sample(names, len(names)):
            failing = name in self._failing
            free = min((1 if failing else AT_ONCE_EACH) - busy.get(name, 0), left[failing])
            if free > 0:
                room[name] = free
                left[failing] -= free
        return room

    def _tried(self, task: asyncio.Task[None]) -> None:
        del self._tries[task]
        self._due.set()  # there is room again
        if not task.cancelled() and (error := task.exception()) is not None:
            # It is due again once its claim has run out.
            _log.warning("webhook_try_lost", reason=reason(error))

    async def _events(self, positions: Collection[int]) -> dict[int, StoredEvent]:
        """The events at these positions; one that the log cannot give any more is missing. Raises `LogUnavailable`."""
        found: dict[int, StoredEvent] = {}
        for position in positions:
            try:
                [found[position]] = await self._ports.log.read(position - 1, 1)
            except (LogDamaged, UnknownSchema, ValueError) as error:
                _log.error("webhook_event_unreadable", position=position, reason=str(error))
        return found

    async def _try(self, due: Due, webhook: Webhook, event: StoredEvent | None, secrets: list[str]) -> None:
        """One try, from the event to what became of it."""
        # Under an id that another tenant's webhook had, what that one left behind may still be waiting.
        foreign = due.position <= webhook.position or (
            event is not None and not webhook.wants(event.tenant, event.type)
        )
        if foreign or (event is not None and await self._ports.unwanted(event)):
            await deliveries.drop(self._ports.pool, due)
            return
        tried = await self._post(webhook, event, secrets)
        if tried.delivered:
            self.delivered += 1
            self._failing.discard(webhook.id)
        else:
            self.failed += 1
            self._failing.add(webhook.id)
            _log.info("webhook_failed", webhook=webhook.id, event_id=str(due.event_id), reason=tried.reason)
        if tried.gone:
            await self._stop(webhook)
            return
        again = None if tried.delivered else pause(due.attempts, tried.retry_after, self._schedule)
        if not tried.delivered and again is None:
            await self._give_up(webhook, due, tried)
        await deliveries.ended(
            self._ports.pool,
            due,
            delivered=tried.delivered,
            status=tried.status,
            reason=tried.reason or None,
            ms=tried.ms,
            again=again,
        )

    async def _post(self, webhook: Webhook, event: StoredEvent | None, secrets: list[str]) -> Tried:
        if event is None:
            return Tried(
                False, "not sent: the log cannot give the event any more; the gateway's log says what is wrong"
            )
        if not secrets:
            return Tried(
                False, "not sent: the webhook has no secret that can be opened; give it one with rotate-secret"
            )
        body = msgspec.json.encode(message(event, for_tenant=webhook.tenant is not None))
        name = str(UUID(bytes=event.event_id))
        headers = {
            "content-type": "application/json",
            "user-agent": f"emberlog/{server_version()}",
            **signing.headers(name, int(time.time()), body, secrets),
        }
        return await self._ports.client.post(webhook.url, body, headers)

    async def _stop(self, webhook: Webhook) -> None:
        """The receiver wants nothing any more (410)."""
        _log.warning("webhook_gone", webhook=webhook.id)
        _, stream = webhook_stream(webhook.tenant)
        with suppress(GatewayError):  # deleted by somebody else meanwhile
            await self._ports.control.run(
                lambda plane: decide_delete(plane, webhook.id, tenant=webhook.tenant, actor="receiver:410"),
                stream=stream,
            )
        await deliveries.forget(self._ports.pool, webhook.id, webhook.owner)

    async def _give_up(self, webhook: Webhook, due: Due, tried: Tried) -> None:
        name = str(due.event_id)
        _log.warning("webhook_given_up", webhook=webhook.id, event_id=name, reason=tried.reason)
        data = WebhookDeliveryFailed(
            webhook=webhook.id,
            event=name,
            attempts=due.attempts + 1,
            reason=tried.reason,
            at=time.time_ns() // 1000,
        )
        await self._ports.append(delivery_failed(webhook, data, due.tries))


async def _set_within(event: asyncio.Event, seconds: float) -> None:
    with suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            await event.wait()
