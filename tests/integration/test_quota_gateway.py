"""Quotas over two gateways and one Postgres: set, used up, lowered, raised and removed while both run; given back when one ends."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from adapters.postgres.pool import Connection
from domain.errors import GatewayError
from domain.ports.provider import EmbedAnswer, EmbedCall
from domain.quotas import decide_remove_quota, decide_set_quota
from gateway.decisions import create_key, create_tenant
from gateway.gateway import Gateway
from gateway.house import master_key
from gateway.places import Places
from gateway.wire.messages import EmbeddingGenerate
from projections.quota.query import QuotaStanding, read_quotas
from tests.support.databases import with_user
from tests.support.installing import installed, settings_of
from tests.support.waiting import until
from tests.unit.service.conftest import Recorder

DAILY: dict[str, Any] = {"scope": "tenant", "unit": "tokens", "window": "day"}
THREE = "a b c"


class Zeros:
    """A provider whose every vector is zero but for its first number."""

    async def embed(self, call: EmbedCall) -> EmbedAnswer:
        rows = np.zeros((len(call.texts), 384), dtype=np.float32)
        rows[:, 0] = 1
        return EmbedAnswer(rows)

    async def warm_up(self) -> None: ...

    async def check(self, timeout: float) -> None: ...

    async def close(self) -> None: ...


@dataclass
class Pair:
    """Two gateways, a tenant `acme` and its key."""

    gateways: list[Gateway]
    key: str
    asked: int = 0
    tokens: list[int] = field(default_factory=list)

    async def ask(self, which: int) -> str:
        """Ask one of them to embed a new text of three words: what came of it, a code or `ok`."""
        self.asked += 1
        gateway, reply = self.gateways[which], Recorder()
        message = EmbeddingGenerate(id=f"r{self.asked}", input=f"{THREE} {self.asked}", model="all-MiniLM-L6-v2")
        try:
            gateway.generate(gateway.authenticate(self.key), "bot", message, [str(message.input)], reply)
        except GatewayError as error:
            return error.code
        await reply.wait()
        if reply.answer is None:
            assert reply.refusal is not None
            return reply.refusal.code
        self.tokens.append(reply.answer.usage.billed_tokens)
        return "ok"

    async def set(self, limit: int | None, *, hard: bool = True) -> None:
        """Set or remove the quota through the first, and wait until the second has heard of it."""
        plane = self.gateways[1].plane

        def decide(p: Any) -> Any:
            if limit is None:
                return decide_remove_quota(p, "acme", **DAILY, actor="cli:test")
            return decide_set_quota(p, "acme", **DAILY, limit=limit, hard=hard, actor="cli:test")

        written = await self.gateways[0].control.run(decide, stream="tenant/acme")
        await until(lambda: plane.position >= written.position, what="the other gateway follows", timeout=1)

    async def standing(self) -> QuotaStanding:
        gateway = self.gateways[0]
        at = time.time_ns() // 1000
        report = await read_quotas(gateway._log.pool, gateway.plane.quotas, "acme", "UTC", at=at)
        [found] = report.quotas
        return found


@pytest.fixture
async def pair(migrated_dsn: str, tmp_path: Path) -> AsyncIterator[Pair]:
    settings = settings_of(migrated_dsn, tmp_path)
    places = Places(with_user(migrated_dsn, "emberlog_gateway"), migrated_dsn, None)
    async with installed(migrated_dsn, tmp_path) as installation, installation.writer() as instance:
        await create_tenant(installation.log, instance, installation.master(), "acme", actor="cli:test")
        key = (await create_key(installation.log, instance, "acme", ["agent"], actor="cli:test")).token
    async with AsyncExitStack() as stack:
        gateways = []
        for _ in range(2):
            gateway = await Gateway.open(settings, places, master_key(settings))
            stack.push_async_callback(gateway.close)
            gateway.endpoints.pool.providers["local"] = Zeros()
            gateways.append(gateway)
        yield Pair(gateways, key)


async def leases(owner: Connection) -> list[tuple[int, int]]:
    rows = await owner.fetch("SELECT granted, used FROM quota.leases ORDER BY granted, used")
    return [(row["granted"], row["used"]) for row in rows]


async def test_a_quota_counts_what_both_gateways_used_before_it_was_set_and_binds_both_as_it_changes(
    pair: Pair, owner: Connection
) -> None:
    for which in (0, 1, 1):
        assert await pair.ask(which) == "ok"
    one, before = pair.tokens[0], sum(pair.tokens)
    assert pair.tokens == [one] * 3
    await pair.set(before + one)
    assert await pair.ask(0) == "ok"
    assert [await pair.ask(0), await pair.ask(1)] == ["quota_exceeded"] * 2

    await pair.set(before + 3 * one)
    assert [await pair.ask(1), await pair.ask(0)] == ["ok"] * 2
    assert [await pair.ask(0), await pair.ask(1)] == ["quota_exceeded"] * 2
    await pair.set(1)
    assert [await pair.ask(0), await pair.ask(1)] == ["quota_exceeded"] * 2
    await pair.set(1, hard=False)
    assert [await pair.ask(0), await pair.ask(1)] == ["ok"] * 2
    await pair.set(None)
    assert [await pair.ask(0), await pair.ask(1)] == ["ok"] * 2
    used = sum(pair.tokens)
    await pair.set(used + one)
    assert [await pair.ask(0), await pair.ask(1)] == ["ok", "quota_exceeded"], "set again, it counts what came between"

    async def folded() -> bool:
        return (await pair.standing()).used == used + one

    await until(folded, what="the view has it all")
    found = await pair.standing()
    assert (found.reserved, found.limit, found.state, found.within) == (0, used + one, "exceeded", False)
    assert found.id == "tenant/tokens/day"
    upkeep = pair.gateways[0]._quota.upkeep
    assert await upkeep.check_drift(again_seconds=0.3) == 0

    async def reported() -> bool:
        await upkeep.look()
        return upkeep.usage == {("acme", "daily_tokens"): 1.0}

    await until(reported, what="the metric has it all, too", timeout=3)


async def test_what_one_gateway_holds_and_does_not_use_the_other_gets_before_it_refuses(pair: Pair) -> None:
    assert await pair.ask(0) == "ok"
    one = pair.tokens[0]
    await pair.set(11 * one)
    told = [await pair.ask(number % 2) for number in range(11)]
    assert told == ["ok"] * 10 + ["quota_exceeded"]
    assert sum(pair.tokens) == 11 * one


async def test_what_a_gateway_has_left_when_it_ends_is_there_for_the_others(pair: Pair, owner: Connection) -> None:
    assert await pair.ask(0) == "ok"
    one = pair.tokens[0]
    await pair.set(8 * 17 * one)
    assert await pair.ask(0) == "ok"
    assert max(granted for granted, _ in await leases(owner)) > 2 * one, "more than it needs at once"
    await pair.gateways[0].close()
    assert (2 * one, 2 * one) in await leases(owner)

    async def closed() -> bool:
        await pair.gateways[1]._quota.upkeep.close_dead()
        return bool(await owner.fetchval(
            "SELECT count(*) FROM quota.leases l JOIN quota.instances i ON i.id = l.instance WHERE i.closed AND l.granted = l.used"
        ))  # fmt: skip

    await until(closed, what="the log's word is taken for what it used")
