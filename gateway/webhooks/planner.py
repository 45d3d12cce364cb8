"""Putting deliveries down: each webhook follows the log from where it was made, whatever becomes of its deliveries."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from uuid import UUID

from adapters.postgres import deliveries
from adapters.postgres.deliveries import Planned
from adapters.postgres.event_scan import EventFilter, EventScan
from adapters.postgres.pool import Pool
from domain.decoding import decode_decision
from domain.events import WebhookDeliveryFailed
from domain.ports.event_log import StoredEvent
from domain.webhooks import Webhook

MAX_WAITING = 10_000
"""Deliveries of one webhook that wait: with so many it stands still in the log, which keeps the rest."""
SAVE_SECONDS = 5.0
_AT_ONCE = 1000


class Planner:
    """Run by one process at a time; another may begin where this one has stopped, or a little before: nothing is put down twice."""

    def __init__(self, pool: Pool, scan: EventScan, webhooks: Callable[[], Mapping[str, Webhook]]) -> None:
        self._pool = pool
        self._scan = scan
        self._webhooks = webhooks
        self._positions: dict[str, int] | None = None
        self._saved_at = 0.0
        self._full: set[str] = set()

    async def plan(self) -> int:
        """Put down what the log holds by now; returns how many. Raises `LogUnavailable` and what the pool raises."""
        webhooks = dict(self._webhooks())
        _, head = await self._scan.place()
        if self._positions is None:
            self._positions = await deliveries.cursors(self._pool)
        known = self._positions
        self._positions = positions = {
            name: max(known.get(name, 0), w.position) for name, w in webhooks.items()
        }  # fmt: skip
        planned = 0
        while behind := {name for name in webhooks if positions[name] < head and name not in self._full}:
            planned += await self._step([webhooks[name] for name in behind], positions, head)
        if time.monotonic() - self._saved_at > SAVE_SECONDS:
            await deliveries.put(self._pool, [], positions)
            waiting = await deliveries.backlog(self._pool)
            self._full = {name for name, count in waiting.items() if count >= MAX_WAITING}
            self._saved_at = time.monotonic()
        return planned

    async def _step(self, behind: list[Webhook], positions: dict[str, int], head: int) -> int:
        """Read on for those furthest behind, up to where others stand: what many follow is read once."""
        start = min(positions[w.id] for w in behind)
        group = [w for w in behind if positions[w.id] == start]
        upto = min((positions[w.id] for w in behind if positions[w.id] > start), default=head)
        tenants = {w.tenant for w in group}
        wanted = EventFilter(
            tenants=None if None in tenants else frozenset(t for t in tenants if t is not None),
            types=frozenset[str]().union(*(w.types for w in group)),
        )
        page = await self._scan.page(start, upto, _AT_ONCE, wanted)
        planned = [
            Planned(w.id, event.position, event.tenant, event.type, UUID(bytes=event.event_id))
            for event in page.events
            for w in group
            if w.wants(event.tenant, event.type) and not _of_itself(event, w)
        ]
        for webhook in group:
            positions[webhook.id] = page.reached
        if planned:
            await deliveries.put(self._pool, planned, {w.id: page.reached for w in group})
        return len(planned)


def _of_itself(event: StoredEvent, webhook: Webhook) -> bool:
    """A webhook is not told that it could not be told something: that would go on for ever."""
    if event.type != WebhookDeliveryFailed.TYPE:
        return False
    data = decode_decision(event.type, event.data, event.schema_version)
    return isinstance(data, WebhookDeliveryFailed) and data.webhook == webhook.id
