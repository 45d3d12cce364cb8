"""An installation under watch: its alerts are worked out, and its clock stands where the test sets it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Any
from uuid import UUID, uuid4

from adapters.postgres.event_log import PostgresEventLog
from domain.alerts import Alert
from domain.events import EmbeddingGenerated, EventData, QuotaSet, TenantCreated, encode_data
from domain.ports.event_log import ANY_VERSION, NewEvent
from gateway.alerts.evaluator import Evaluator
from gateway.alerts.watch import AlertWatch
from projections.alerts import ALERTS
from projections.alerts.query import read_alerts
from projections.cursor import Standing
from projections.quota import QUOTA
from projections.runner import Runner
from tests.support.views import running
from tests.support.waiting import until
from tests.support.webhooks import House, house

NOW = datetime(2026, 11, 21, 12, tzinfo=UTC).timestamp()


class Watchtower:
    """An installation under watch: its clock stands where the test sets it."""

    def __init__(self, home: House, runner: Runner) -> None:
        self.home = home
        self.runner = runner
        self.now = NOW
        self.standings: dict[str, Standing] = {}
        self.drift = 0
        self.evaluator = Evaluator(home.log.pool, home.plane, home.append, clock=lambda: self.now)

    def watch(self, **how: Any) -> AlertWatch:
        return AlertWatch(
            self.home.log.pool, self.home.plane, self.evaluator, reach=self.reach, standings=lambda: self.standings,
            drift=lambda: self.drift, **{"poll_seconds": 0.02, "lease_seconds": 1.0} | how,
        )  # fmt: skip

    async def reach(self, _: int, __: float) -> None:
        await self.home.catch_up()

    async def log(self, tenant: str, *events: EventData) -> int:
        """Append; returns the position of the last, once the quota view and the plane have it."""
        new = []
        for data in events:
            key = uuid4().bytes
            streams = {"tenant": tenant, **{k: v for k, v in vars_of(data).items() if isinstance(v, str)}}
            version = ANY_VERSION if data.DECISION else None
            new.append(
                NewEvent(
                    key,
                    key,
                    tenant,
                    data.STREAMS[0].format(**streams),
                    data.TYPE,
                    encode_data(data),
                    expected_version=version,
                )
            )
        appended = await self.home.append(new)
        position = appended[-1].position
        assert position is not None
        await self.home.catch_up()
        await self.runner.wait_for(QUOTA.name, position, 10)
        return position

    async def use(self, tokens: int, tenant: str = "acme", **more: Any) -> None:
        await self.log(tenant, answered(tokens, **more))

    async def alerts(self, **which: Any) -> list[Alert]:
        """As the view shows them when it has caught up."""
        await self.runner.wait_for(ALERTS.name, await self.home.log.head(), 10)
        return await read_alerts(self.home.log.pool, **which)

    async def see(self, *wanted: str) -> list[Alert]:
        """Wait until exactly these are open."""

        async def so() -> bool:
            return sorted(a.kind for a in await self.alerts(still_open=True)) == sorted(wanted)

        await until(so, what=f"open: {wanted}")
        return await self.alerts(still_open=True)

    async def look(self, tenant: str = "acme") -> list[str]:
        """Evaluate one tenant; the kinds that are open then."""
        await self.evaluator.evaluate_now(tenant)
        return sorted(a.kind for a in await self.alerts(still_open=True, tenants=[tenant]))


def vars_of(data: EventData) -> dict[str, Any]:
    return {name: getattr(data, name) for name in data.__struct_fields__}


def answered(tokens: int, **more: Any) -> EmbeddingGenerated:
    fields: dict[str, Any] = {
        "request_id": uuid4().hex, "agent": "a", "attempt": 1, "at": int(NOW * 1_000_000), "model": "m", "provider": "p", "endpoint": "e",
        "space": "s", "inputs": 1, "tokens": tokens, "billed_tokens": tokens, "price": "x", "latency_ms": 1, "dimensions": 3,
        "nano_usd": tokens, "instance": "i", "day": "2026-11-21",
    }  # fmt: skip
    return EmbeddingGenerated(**fields | more)


def quota(limit: int, **more: Any) -> QuotaSet:
    return QuotaSet(**{"scope": "tenant", "unit": "tokens", "window": "month", "limit": limit} | more)


class Working:
    """Watches, or other work, under way."""

    def __init__(self, *work: AlertWatch | Coroutine[Any, Any, None]) -> None:
        self._work = [w.run() if isinstance(w, AlertWatch) else w for w in work]

    async def __aenter__(self) -> None:
        self._tasks = [asyncio.create_task(w) for w in self._work]

    async def __aexit__(self, *_: object) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)


@asynccontextmanager
async def watchtower(log: PostgresEventLog, instance: UUID, dsn: str) -> AsyncIterator[Watchtower]:
    """One whose tenant acme exists."""
    async with house(log, instance, dsn) as home, running(dsn, ALERTS, QUOTA) as runner:
        made = Watchtower(home, runner)
        await made.log("acme", TenantCreated(tenant="acme"))
        yield made
