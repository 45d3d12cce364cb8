"""The gate of the rate limits, before a request service in memory."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from typing import Any

import pytest

from adapters.memory.rate_limiter import MemoryBuckets, MemoryRateLimiter
from domain.events import EmbeddingRequested, RateLimitSet
from domain.ports.rate_limiter import LimiterUnavailable
from domain.rate_buckets import SCALE, Claim, Verdict
from domain.rate_limits import RateLimits
from gateway.limits.gate import RateGate
from gateway.limits.memory import Memory
from gateway.limits.standing import Standing, duration, rate_headers
from tests.unit.service.conftest import Rig, make_rig


class Store(MemoryRateLimiter):
    """Keeps what it was asked; `open` holds answers back when cleared; `trouble` is raised."""

    def __init__(self) -> None:
        self.now = 1_000_000
        super().__init__(MemoryBuckets(lambda: self.now))
        self.calls: list[Sequence[Sequence[Claim]]] = []
        self.open = asyncio.Event()
        self.open.set()
        self.called = asyncio.Event()
        self.trouble: Exception | None = None

    def lose(self) -> None:
        self._buckets.state.clear()

    async def take(self, requests: Sequence[Sequence[Claim]]) -> list[Verdict]:
        self.calls.append(requests)
        self.called.set()
        await self.open.wait()
        if self.trouble is not None:
            raise self.trouble
        return await super().take(requests)


class World:
    """A rig behind a gate."""

    def __init__(self, rig: Rig, limits: RateLimits, store: Store) -> None:
        self.rig = rig
        self.store = store
        self._limits = limits

    def put(self, scope: str, subject: str | None = None, **figures: Any) -> None:
        self._limits.apply("acme", RateLimitSet(scope=scope, subject=subject, **figures))

    async def logged(self) -> int:
        return len(await self.rig.events(EmbeddingRequested.TYPE))


@pytest.fixture
async def world() -> AsyncIterator[World]:
    limits, store = RateLimits(), Store()
    gate = RateGate(limits, store)
    rig = await make_rig(gates=[gate])
    yield World(rig, limits, store)
    await rig.service.close()
    await gate.close()
    await rig.appender.close()


async def test_where_no_limit_is_set_nobody_is_asked(world: World) -> None:
    replies = [world.rig.send(f"text {n}", id=f"r{n}")[0] for n in range(200)]
    assert all([(await reply.wait()).answer for reply in replies])
    assert world.store.calls == []


async def test_requests_of_one_turn_are_asked_for_in_one_call_and_those_that_come_meanwhile_in_the_next(
    world: World,
) -> None:
    world.put("tenant", requests_per_minute=100)
    world.store.open.clear()
    first = [world.rig.send(f"text {n}", id=f"a{n}")[0] for n in range(5)]
    await world.store.called.wait()
    later = [world.rig.send(f"text {n}", id=f"b{n}")[0] for n in range(7)]
    world.store.open.set()
    assert all([(await reply.wait()).answer for reply in first + later])
    assert [len(call) for call in world.store.calls] == [5, 7]


async def test_what_is_over_the_limit_is_refused_and_not_logged_and_told_when_to_come_again(world: World) -> None:
    world.put("agent", requests_per_minute=2)
    good = [(await world.rig.ask("text", id=f"r{n}")).answer for n in range(2)]
    assert all(good)
    refused = (await world.rig.ask("text", id="r2")).refusal
    assert refused is not None
    assert refused.code == "rate_limited"
    assert refused.retry_after_ms == 30_000
    assert refused.details == {"scope": "agent", "unit": "requests", "limit": 2}
    assert await world.logged() == 2
    assert (await world.rig.ask("text", id="r2", agent="a2")).answer is not None, "another agent waits for the first"
    world.store.now += 29_999
    assert (await world.rig.ask("text", id="r2")).refusal is not None
    world.store.now += 1
    assert (await world.rig.ask("text", id="r2")).answer is not None


async def test_the_bucket_that_takes_longest_is_the_one_that_is_told(world: World) -> None:
    world.put("tenant", requests_per_minute=4)
    world.put("thread", tokens_per_minute=10)
    text = " ".join(["word"] * 6)
    assert (await world.rig.ask(text, id="r1", thread="t")).answer is not None
    refused = (await world.rig.ask(text, id="r2", thread="t")).refusal
    assert refused is not None
    assert refused.details == {"scope": "thread", "unit": "tokens", "limit": 10}
    assert refused.retry_after_ms == 12_000
    assert (await world.rig.ask(text, id="r2")).answer is not None, "it is in no thread"


async def test_a_request_that_could_never_pass_is_refused_for_good(world: World) -> None:
    world.put("key", tokens_per_minute=3)
    with pytest.raises(Exception, match="4 tokens") as refused:
        await world.rig.ask("one two three four")
    assert refused.value.code == "invalid_request"  # type: ignore[attr-defined]
    assert refused.value.details == {"field": "input", "scope": "key", "unit": "tokens", "limit": 3}  # type: ignore[attr-defined]
    assert world.store.calls == []
    assert (await world.rig.ask("one two three")).answer is not None


async def test_a_limit_holds_when_the_store_forgets_it(world: World) -> None:
    world.put("agent", requests_per_minute=2)
    for number in range(2):
        assert (await world.rig.ask("text", id=f"r{number}")).answer is not None
    world.store.lose()
    refused = (await world.rig.ask("text", id="r2")).refusal
    assert refused is not None
    assert refused.code == "rate_limited"


async def test_what_is_remembered_refills_and_is_forgotten(world: World) -> None:
    now = 50.0
    memory = Memory(lambda: now)
    claim = Claim("{acme}b", 6, 1)
    memory.note([claim], [6 * SCALE])
    now += 10
    assert memory.lacking("{acme}b", 6, memory.now()) == 5 * SCALE
    assert memory.lacking("{acme}b", 2, memory.now()) == 2 * SCALE - 20_000, (
        "under a lower limit it lacks no more than that holds"
    )
    assert memory.lacking("{acme}c", 6, memory.now()) == 0
    for _ in range(2):
        now += 61
        memory.note([Claim("{acme}d", 1, 1)], [SCALE])
    assert len(memory._recent) + len(memory._older) == 2, "it has forgotten nothing, or too much"
    assert memory.lacking("{acme}b", 6, memory.now()) == 0


async def test_only_so_many_buckets_are_remembered_the_latest_among_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gateway.limits.memory.MOST", 10)
    heard = Memory(lambda: 0.0)
    for number in range(1000):
        heard.note([Claim(f"thread {number}", 60, 1)], [SCALE])
    assert sum(heard.lacking(f"thread {number}", 60, 0) > 0 for number in range(1000)) <= 20
    assert heard.lacking("thread 999", 60, 0) == SCALE


async def test_a_dry_run_takes_nothing(world: World) -> None:
    world.put("key", requests_per_minute=1)
    for _ in range(3):
        assert (await world.rig.ask("text", dry_run=True)).answer is not None
    assert world.store.calls == []


async def test_where_no_store_can_be_asked_nothing_passes(world: World) -> None:
    world.put("key", requests_per_minute=1)
    world.store.trouble = LimiterUnavailable("gone")
    refused = (await world.rig.ask("text")).refusal
    assert refused is not None
    assert refused.code == "unavailable"
    assert refused.retry_after_ms
    assert await world.logged() == 0
    world.store.trouble = None
    assert (await world.rig.ask("text")).answer is not None


async def test_a_defect_of_the_store_fails_who_waits_for_it_and_nobody_after(world: World) -> None:
    world.put("key", requests_per_minute=1)
    world.store.trouble = ValueError("a defect")
    refused = (await world.rig.ask("text")).refusal
    assert refused is not None
    assert refused.code == "internal"
    world.store.trouble = None
    assert (await world.rig.ask("text")).answer is not None


async def test_a_request_that_is_cancelled_before_it_is_asked_for_takes_nothing(world: World) -> None:
    world.put("key", requests_per_minute=1)
    reply, ticket = world.rig.send("text", id="given up")
    ticket.cancel()
    assert (await reply.wait()).refusal is not None
    assert (await world.rig.ask("text", id="another")).answer is not None
    assert await world.logged() == 1


async def test_a_request_cancelled_while_it_is_asked_for_is_not_logged(world: World) -> None:
    world.put("key", requests_per_minute=5)
    world.store.open.clear()
    reply, ticket = world.rig.send("text", id="given up")
    await world.store.called.wait()
    ticket.cancel()
    world.store.open.set()
    refused = (await reply.wait()).refusal
    assert refused is not None
    assert refused.code == "cancelled"
    assert (await world.rig.ask("text", id="another")).answer is not None
    assert await world.logged() == 1


async def test_a_ticket_tells_the_tightest_bucket_of_each_unit_also_when_it_is_refused(world: World) -> None:
    world.put("tenant", requests_per_minute=10, tokens_per_minute=1000)
    world.put("agent", requests_per_minute=2)
    reply, ticket = world.rig.send("one two", id="r1")
    await reply.wait()
    assert ticket.rates == (Standing("requests", 2, 1, 30_000), Standing("tokens", 1000, 998, 120))
    await world.rig.ask("one two", id="r2")
    reply, ticket = world.rig.send("one two", id="r3")
    assert (await reply.wait()).refusal is not None
    assert ticket.rates == (Standing("requests", 2, 0, 60_000), Standing("tokens", 1000, 996, 240))


def test_headers_are_named_and_durations_written_as_openai_does() -> None:
    assert rate_headers([]) == []
    assert rate_headers([Standing("tokens", 1000, 998, 120)]) == [
        (b"x-ratelimit-limit-tokens", b"1000"),
        (b"x-ratelimit-remaining-tokens", b"998"),
        (b"x-ratelimit-reset-tokens", b"120ms"),
    ]
    assert [duration(ms) for ms in (0, 1, 999, 1_000, 1_500, 59_001, 60_000, 360_000, 90_250)] == [
        "0s", "1ms", "999ms", "1s", "1.5s", "59.001s", "1m0s", "6m0s", "1m30.25s",
    ]  # fmt: skip
