"""Four gateways, 200 connections, ten times the demand that the quotas allow; one gateway is killed, one held for dead comes back, the
cache is lost: what the log says was used is never more than the limit, to the token, and nearly all of it.
"""

from __future__ import annotations

import asyncio
import itertools
import os
import signal
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path

import asyncpg
from pydantic import SecretStr
from websockets.exceptions import ConnectionClosed, InvalidHandshake

from adapters.postgres import quota_leases
from adapters.postgres.pool import open_pool
from domain.events import QuotaSet
from gateway.decisions import append_decision, create_key, create_tenant
from gateway.demo.process import GatewayProcess
from gateway.manage import open_installation
from gateway.settings import Settings
from tests.acceptance.ledger import audit, within
from tests.acceptance.peer import Peer, session
from tests.acceptance.provider import Simulator
from tests.acceptance.site import Site
from tests.support.proxy import CuttingProxy
from tests.support.waiting import until

CONNECTIONS = 201
GATEWAYS = 4
SIZES = (60, 200, 600, 1800)
"""Tokens of a request, in turn; where requests are counted, few."""
LIMITS = {"tokens": 100_000, "nano_usd": 2_000_000, "requests": 200}
"""Each is the quota of a tenant of that name; 20 nano-dollars a token."""
OVER = 10
PAUSE_SECONDS = 0.1
"""A connection that is refused asks again after this: all of them at once are 2,000 requests a second."""
GONE = (ConnectionError, ConnectionClosed, InvalidHandshake, OSError, TimeoutError)


@dataclass
class Demand:
    """Connections that ask again and again for one tenant, whatever they are told; where a gateway is gone they go to another."""

    unit: str
    key: str
    urls: list[str]
    asked: int = 0
    """How much of its quota was asked for, in the quota's unit."""
    told: Counter[str] = field(default_factory=Counter)
    stop: bool = False
    _numbers: itertools.count[int] = field(default_factory=itertools.count)

    async def connection(self, place: int) -> None:
        while not self.stop:
            try:
                async with session(self.urls[place % len(self.urls)], self.key) as peer:
                    while not self.stop:
                        if not await self._ask(peer):
                            await asyncio.sleep(PAUSE_SECONDS)  # a client that was refused asks again a little later
            except GONE:
                place += 1
                await asyncio.sleep(0)  # with every gateway away, connecting fails at once: the others need a turn

    async def _ask(self, peer: Peer) -> bool:
        """Whether it was answered."""
        number = next(self._numbers)
        tokens = 10 if self.unit == "requests" else SIZES[number % len(SIZES)]
        answer = await peer.embed(f"{self.unit}-{number}", f"{number}" + " a" * (tokens - 2))
        self.asked += {"tokens": tokens, "nano_usd": tokens * 20, "requests": 1}[self.unit]
        self.told["result" if answer["type"] == "embedding.result" else answer["code"]] += 1
        return bool(answer["type"] == "embedding.result")


@asynccontextmanager
async def asking(demands: list[Demand]) -> AsyncIterator[None]:
    async with asyncio.TaskGroup() as group:
        for number in range(CONNECTIONS):
            group.create_task(demands[number % len(demands)].connection(number // len(demands)))
        try:
            yield
        finally:
            for demand in demands:
                demand.stop = True


async def test_ten_times_the_demand_uses_the_quotas_up_and_not_a_unit_more(
    migrated: Site, redis_url: str, provider: Simulator
) -> None:
    keys = await _tenants(migrated)
    async with CuttingProxy.before_redis(redis_url) as valkey:
        gateways = [
            migrated.gateway(log=f"{n}.log", EMBERLOG_INSTANCE_LEASE_SECONDS="2", EMBERLOG_REDIS_URL=valkey.redis_url())
            for n in range(GATEWAYS)
        ]
        await asyncio.gather(*(gateway.start() for gateway in gateways))
        try:
            await _overspend(migrated, gateways, keys, valkey, provider)
            await until(lambda: _agreed(migrated), what="leases and log agree", timeout=60)
        finally:
            await asyncio.gather(*(gateway.stop() for gateway in gateways))
    events = await migrated.events()
    audit(events)
    for unit, limit in LIMITS.items():
        left = within(events, unit.replace("_", "-"), unit, limit)
        assert left <= limit // 100, f"{left} {unit} of {limit} were never used"


async def _tenants(site: Site) -> dict[str, str]:
    """A tenant for each unit with its quota; their keys."""
    settings = Settings(
        database_url=SecretStr(site.env["EMBERLOG_DATABASE_URL"]),
        redis_url=SecretStr("none"),
        secret_key_file=Path(site.env["EMBERLOG_SECRET_KEY_FILE"]),
    )
    keys = {}
    async with open_installation(settings) as installation, installation.writer() as instance:
        for unit, limit in LIMITS.items():
            tenant = unit.replace("_", "-")
            await create_tenant(installation.log, instance, installation.master(), tenant, actor="cli:test")
            keys[unit] = (await create_key(installation.log, instance, tenant, ["agent"], actor="cli:test")).token
            quota = QuotaSet(scope="tenant", unit=unit, window="day", limit=limit, actor="cli:test")
            await append_decision(installation.log, instance, tenant, f"tenant/{tenant}", quota)
    return keys


async def _overspend(
    site: Site, gateways: list[GatewayProcess], keys: dict[str, str], valkey: CuttingProxy, provider: Simulator
) -> None:
    connection = await asyncpg.connect(site.dsn)
    demands = [Demand(unit, key, [g.url for g in gateways]) for unit, key in keys.items()]

    async def used(share: float) -> bool:
        rows = await connection.fetch("SELECT * FROM quota.windows")
        return len(rows) == len(LIMITS) and all(row["used"] >= share * row["limit_value"] for row in rows)

    async def closed() -> bool:
        rows = await connection.fetch(
            "SELECT DISTINCT l.instance FROM quota.leases l JOIN quota.instances i ON i.id = l.instance WHERE i.closed"
        )
        return len(rows) >= 2

    async def answering() -> bool:
        rows = await connection.fetch("SELECT id FROM emberlog.instances WHERE fenced_at IS NULL")
        return len(rows) == GATEWAYS - 1

    killed, paused = gateways[:2]
    try:
        async with asking(demands):
            await until(lambda: used(0.2), what="a fifth of each quota is used", timeout=60)
            provider.control(hold=True)  # what is asked now is reserved by gateways that will not settle it
            await until(lambda: _held(connection), what="every gateway has requests in flight", timeout=60)
            await killed.kill()
            os.kill(paused.pid, signal.SIGSTOP)
            valkey.refuse()
            valkey.cut()
            provider.control(hold=False)
            await until(closed, what="what the dead held is counted", timeout=60)
            os.kill(paused.pid, signal.SIGCONT)
            await until(answering, what="the paused gateway goes on as another instance", timeout=60)
            await until(lambda: used(0.99), what="the quotas are used up", timeout=60)
            await until(
                lambda: all(d.asked >= OVER * LIMITS[d.unit] for d in demands),
                what="ten times as much was asked for",
                timeout=60,
            )
    finally:
        await connection.close()
    for demand in demands:
        refusal = "budget_exceeded" if demand.unit == "nano_usd" else "quota_exceeded"
        assert demand.told["result"] > 0
        assert demand.told[refusal] > demand.told["result"]


async def _agreed(site: Site) -> bool:
    """Every request has ended, and every lease is what the log says."""
    pool = await open_pool(site.dsn, "agreed", max_size=1)
    try:
        today = datetime.now(UTC).date()
        open_ = await pool.fetchval("SELECT count(*) FROM projections.requests WHERE state = 'open'")
        return open_ == 0 and not await quota_leases.drift(pool, today - timedelta(days=1))
    finally:
        pool.terminate()


async def _held(connection: asyncpg.Connection[asyncpg.Record]) -> bool:
    rows = await connection.fetch(
        "SELECT DISTINCT instance FROM projections.requests WHERE state = 'open' AND instance IS NOT NULL"
    )
    return len(rows) == GATEWAYS
