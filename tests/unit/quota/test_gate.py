"""The gate and the keeper behind it, in a request service: what is let in, what waits, what is refused and how."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Sequence
from typing import Any
from uuid import UUID

import msgspec
import pytest

from adapters.appender import QueueFull
from adapters.memory.event_log import MemoryEventLog
from domain import quota_lease
from domain.errors import GatewayError
from domain.events import EmbeddingFailed, EmbeddingGenerated, EmbeddingRequested, PriceSet, QuotaSet, TenantConfigured
from domain.plane import ControlPlane
from domain.ports.event_log import Appended, InstanceFenced, LogUnavailable, NewEvent
from domain.prices import PriceBook
from domain.quota_lease import Answer, Ask
from gateway.quota import keeper
from gateway.quota.gate import QuotaGate
from gateway.quota.keeper import Keeper
from gateway.quota.live import LeasedQuotas
from tests.support.quotas import Bank
from tests.unit.service.conftest import Rig, make_rig


class Quotas:
    """A plane, a bank and the gate between them. `away` makes the bank unreachable, `gate_open` keeps its answers back while cleared."""

    def __init__(self) -> None:
        self.plane = ControlPlane()
        self.bank = Bank(0)
        self.away: Exception | None = None
        self.behind = False
        self.open = asyncio.Event()
        self.open.set()
        self.calls: list[list[Ask]] = []
        self.keeper = Keeper(self.plane.quotas, self._lease, "1")
        self.gate = QuotaGate(self.plane, self.keeper)
        self.running = asyncio.create_task(self.keeper.run())

    async def _lease(self, instance: str, serial: int, asks: Sequence[Ask]) -> list[Answer]:
        self.calls.append(list(asks))
        await self.open.wait()
        if self.away is not None:
            raise self.away
        if self.behind:
            return [Answer(0, self.bank.limit, 0, 0, behind=True) for _ in asks]
        return self.bank.lease(int(instance), serial, asks)

    def set(self, limit: int, unit: str = "tokens", *, hard: bool = True) -> None:
        self.bank.limit = limit
        data = QuotaSet(scope="tenant", unit=unit, window="day", limit=limit, hard=hard)
        self.plane.quotas.apply("acme", data, self.plane.quotas.version + 1)


@pytest.fixture
async def quotas() -> AsyncIterator[Quotas]:
    made = Quotas()
    yield made
    made.running.cancel()
    await asyncio.gather(made.running, return_exceptions=True)


@pytest.fixture
async def rig(quotas: Quotas) -> AsyncIterator[Rig]:
    made = await make_rig(gates=[quotas.gate], dry_gates=[quotas.gate])
    yield made
    await made.service.close()
    await made.appender.close()


def held(quotas: Quotas) -> tuple[int, int]:
    """(used, reserved) of the one lease."""
    [lease] = quotas.keeper.ledger.leases()
    return lease.used, lease.reserved


async def test_what_a_request_may_use_is_reserved_and_its_outcome_settles_it(rig: Rig, quotas: Quotas) -> None:
    quotas.set(100)
    rig.provider.gate.clear()
    reply, _ = rig.send(["one two three", "four"])
    await rig.provider.called.wait()
    assert held(quotas) == (0, 4)
    rig.provider.gate.set()
    await reply.wait()
    assert reply.refusal is None
    assert held(quotas) == (4, 0)
    [requested] = await rig.events("embedding.requested")
    [outcome] = await rig.events("embedding.generated")
    assert isinstance(requested, EmbeddingRequested)
    assert isinstance(outcome, EmbeddingGenerated)
    assert outcome.instance == requested.instance == rig.service.instance


async def test_an_answer_says_how_many_tokens_are_left_where_a_hard_quota_of_them_is_set(
    rig: Rig, quotas: Quotas
) -> None:
    async def told(text: str, **options: Any) -> object:
        result = (await rig.ask(text, **options)).answer
        assert result is not None
        return result.quota_remaining

    assert await told("one", id="unbound") is msgspec.UNSET
    quotas.set(100)
    assert await told("one two three", id="first") == 100 - 1 - 3
    assert await told("four five", id="estimate", dry_run=True) == 94, "what would be left"
    assert await told("four five", id="second") == 94
    quotas.bank.leases[2] = quotas.bank.used[2] = 50
    quotas.set(90)
    while not any(lease.seen_used >= 50 for lease in quotas.keeper.ledger.leases()):
        await asyncio.sleep(0.01)
    assert await told("six", id="third") == 90 - 50 - 7, "what other gateways used counts"
    quotas.set(90, hard=False)
    assert await told("seven", id="soft") is msgspec.UNSET


async def test_what_exceeds_a_quota_is_refused_with_all_that_explains_it_and_not_logged(
    rig: Rig, quotas: Quotas
) -> None:
    quotas.set(5)
    assert (await rig.ask("one two three", id="first")).refusal is None
    refusal = (await rig.ask("one two three", id="second")).refusal
    assert refusal is not None
    assert (refusal.code, refusal.status, refusal.retryable) == ("quota_exceeded", 402, False)
    assert refusal.details is not None
    assert {n: refusal.details[n] for n in ("window", "limit", "reserved", "alternatives")} == {
        "window": "day", "limit": 5, "reserved": 0, "alternatives": [],
    }  # fmt: skip
    assert refusal.details["resets_at"].endswith("T00:00:00Z")
    assert len(await rig.events("embedding.requested")) == 1
    assert (await rig.ask("one two", id="third")).refusal is None, "what is left is let in to the last token"
    metrics = {
        tuple(s.labels.values()): s.value
        for m in rig.metrics.collect()
        for s in m.samples
        if s.name == "embedding_errors_total"
    }
    assert metrics["acme", "", "quota_exceeded"] == 1


async def test_what_was_just_refused_is_refused_again_without_a_call(
    rig: Rig, quotas: Quotas, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(quota_lease, "REFUSED_SECONDS", 60.0)
    quotas.set(5)
    assert (await rig.ask("one two three four five six", id="first")).refusal is not None
    before = len(quotas.calls)
    with pytest.raises(GatewayError, match="may need 6"):
        rig.send("one two three four five six", id="second")
    assert len(quotas.calls) == before


async def test_what_another_holds_and_gives_back_soon_is_waited_for(rig: Rig, quotas: Quotas) -> None:
    quotas.set(5)
    quotas.bank.leases[2], quotas.bank.used[2] = 4, 1
    reply, _ = rig.send("one two three")
    while len(quotas.calls) < 2:
        await asyncio.sleep(0.01)
    assert not reply.done.is_set()
    quotas.bank.leases[2] = 1
    assert (await reply.wait()).refusal is None


async def test_what_another_holds_and_keeps_is_refused_in_the_end(
    rig: Rig, quotas: Quotas, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(keeper, "RETURN_SECONDS", 0.25)
    quotas.set(5)
    quotas.bank.leases[2], quotas.bank.used[2] = 4, 1
    refusal = (await rig.ask("one two three")).refusal
    assert refusal is not None
    assert refusal.details is not None
    assert (refusal.details["used"], refusal.details["reserved"]) == (1, 3)
    assert len(quotas.calls) >= 2


async def test_a_budget_is_refused_as_one(rig: Rig, quotas: Quotas) -> None:
    quotas.set(60, "nano_usd")  # 20 a token
    assert (await rig.ask("one two three", id="first")).refusal is None
    refusal = (await rig.ask("one", id="second")).refusal
    assert refusal is not None
    assert refusal.code == "budget_exceeded"


async def test_a_hard_budget_lets_in_no_model_of_unknown_price(quotas: Quotas) -> None:
    prices = PriceBook()
    prices.apply(PriceSet(price="price-1", model="m", provider="p", effective_from=0, unit_pico_usd=None))
    rig = await make_rig(gates=[quotas.gate], prices=prices)
    try:
        assert (await rig.ask("one", id="free")).refusal is None
        quotas.set(10**18, "nano_usd")
        with pytest.raises(GatewayError, match="unknown") as refused:
            rig.send("one", id="bound")
        assert refused.value.code == "no_model_available"
        quotas.set(0, "nano_usd", hard=False)
        assert (await rig.ask("one", id="soft")).refusal is None
    finally:
        await rig.service.close()
        await rig.appender.close()


async def test_while_postgres_is_away_what_is_left_is_let_in_and_no_more(rig: Rig, quotas: Quotas) -> None:
    quotas.set(1000)
    assert (await rig.ask("one", id="first")).refusal is None
    quotas.away = LogUnavailable("gone")
    assert (await rig.ask("one", id="second")).refusal is None
    refusal = (await rig.ask(["one two three four five six seven eight nine ten"] * 100, id="third")).refusal
    assert refusal is not None
    assert (refusal.code, refusal.retryable) == ("unavailable", True)
    quotas.away = None
    assert (await rig.ask("one", id="fourth")).refusal is None


async def test_requests_that_wait_share_one_call(rig: Rig, quotas: Quotas) -> None:
    quotas.set(1000)
    quotas.open.clear()
    replies = [rig.send("one two", id=f"r{n}")[0] for n in range(20)]
    while not quotas.calls:
        await asyncio.sleep(0)
    late = [rig.send("one two", id=f"late{n}")[0] for n in range(20)]
    quotas.open.set()
    for reply in replies + late:
        assert (await reply.wait()).refusal is None
    assert len([asks for asks in quotas.calls if any(ask.need for ask in asks)]) <= 2


async def test_one_that_is_given_up_while_it_waits_takes_nothing(rig: Rig, quotas: Quotas) -> None:
    quotas.set(1000)
    quotas.open.clear()
    reply, ticket = rig.send("one two three")
    while not quotas.calls:
        await asyncio.sleep(0)
    ticket.cancel()
    quotas.open.set()
    refusal = (await reply.wait()).refusal
    assert refusal is not None
    assert refusal.code == "cancelled"
    assert (await rig.ask("one", id="next")).refusal is None
    assert held(quotas) == (1, 0)
    assert len(await rig.events("embedding.requested")) == 1


async def test_a_replay_reserves_nothing_for_long(rig: Rig, quotas: Quotas) -> None:
    quotas.set(1000)
    await rig.ask("one two", id="same")
    again = await rig.ask("one two", id="same")
    assert again.answer is not None
    assert again.answer.replayed
    assert held(quotas) == (2, 0)


async def test_a_request_that_is_cancelled_settles_what_its_failure_bills(rig: Rig, quotas: Quotas) -> None:
    quotas.set(1000)
    rig.provider.gate.clear()
    reply, ticket = rig.send("one two")
    await rig.provider.called.wait()
    ticket.cancel()
    await reply.wait()
    rig.provider.gate.set()
    [outcome] = await rig.events("embedding.failed")
    assert isinstance(outcome, EmbeddingFailed)
    assert held(quotas) == (outcome.billed_tokens, 0) == (2, 0)
    assert outcome.instance == rig.service.instance


class LostAnswers(MemoryEventLog):
    """A log that takes outcomes and whose answer gets lost."""

    async def append(self, instance: UUID, events: Sequence[NewEvent]) -> list[Appended]:
        appended = await super().append(instance, events)
        if any(event.type != "embedding.requested" for event in events):
            raise LogUnavailable("the answer was lost")
        return appended


async def test_while_nobody_knows_whether_the_log_has_an_outcome_what_it_took_stays_taken(quotas: Quotas) -> None:
    log = LostAnswers()
    rig = await make_rig(log, gates=[quotas.gate])
    quotas.set(1000)
    reply, _ = rig.send("one two")
    async with asyncio.timeout(5):
        while not await rig.events("embedding.generated"):
            await asyncio.sleep(0)
    await rig.appender.close()
    assert (await reply.wait()).refusal is not None
    assert held(quotas) == (0, 2)
    await quotas.keeper.close()
    assert quotas.bank.leases[1] == 2, (
        "it is not given back: the log says what became of it once this process is fenced"
    )
    await rig.service.close()


async def test_a_fenced_instance_starts_anew_with_nothing(rig: Rig, quotas: Quotas) -> None:
    quotas.set(1000)
    await rig.ask("one two", id="first")
    quotas.bank.log[1] = 2
    quotas.bank.close(1)
    quotas.open.clear()
    quotas.keeper.rebind("2")
    reply, _ = rig.send("three four", id="second")
    quotas.open.set()
    assert (await reply.wait()).refusal is None
    assert held(quotas) == (2, 0)
    assert quotas.bank.leases[1] == 2


async def test_a_fenced_instance_is_granted_nothing_and_says_so(rig: Rig, quotas: Quotas) -> None:
    quotas.set(1000)
    quotas.away = InstanceFenced()
    refusal = (await rig.ask("one two")).refusal
    assert refusal is not None
    assert (refusal.code, refusal.retryable) == ("unavailable", True)


async def test_until_what_was_used_before_is_counted_requests_wait(rig: Rig, quotas: Quotas) -> None:
    quotas.set(1000)
    quotas.behind = True
    reply, _ = rig.send("one two")
    while len(quotas.calls) < 2:
        await asyncio.sleep(0.01)
    assert not reply.done.is_set()
    quotas.behind = False
    assert (await reply.wait()).refusal is None


async def test_the_day_is_the_tenant_s_and_is_said_where_it_is_not_utc_s(quotas: Quotas) -> None:
    rig = await make_rig(gates=[quotas.gate])
    try:
        days = set()
        for number, zone in enumerate(("Pacific/Kiritimati", "Etc/GMT+12")):  # UTC+14 and UTC-12: never the same day
            quotas.plane.tenants.apply("acme", TenantConfigured(time_zone=zone))
            await rig.ask("one", id=f"r{number}")
        for event in await rig.events("embedding.generated"):
            assert isinstance(event, EmbeddingGenerated)
            days.add(event.day)
        assert len(days) == 2
    finally:
        await rig.service.close()
        await rig.appender.close()


async def test_a_soft_budget_that_is_used_up_is_known_for_the_present_window(rig: Rig, quotas: Quotas) -> None:
    quotas.set(30, "nano_usd", hard=False)
    assert not quotas.gate.over_soft_budget("acme")
    assert (await rig.ask("one two", id="first")).refusal is None

    async def over() -> None:
        while not quotas.gate.over_soft_budget("acme"):
            [lease] = quotas.keeper.ledger.leases()
            lease.seen_used = lease.used  # the bank of this test knows no use
            await asyncio.sleep(0)

    async with asyncio.timeout(5):
        await over()
    assert not quotas.gate.over_soft_budget("globex")
    quotas.set(50, "nano_usd", hard=False)
    quotas.keeper.follow()
    assert not quotas.gate.over_soft_budget("acme"), "raised"


async def test_a_clock_that_was_put_forward_and_back_makes_no_process_forget_the_day(
    rig: Rig, quotas: Quotas, monkeypatch: pytest.MonkeyPatch
) -> None:
    quotas.set(10)
    assert (await rig.ask("one two three four five six")).refusal is None
    now = time.time()
    monkeypatch.setattr(keeper, "PRUNE_SECONDS", -1.0)
    with monkeypatch.context() as ahead:
        ahead.setattr(time, "time", lambda: now + 5 * 86_400)
        ahead.setattr(time, "time_ns", lambda: int((now + 5 * 86_400) * 1e9))
        quotas.keeper._prune()
    assert held(quotas) == (6, 0), "what was used of the day is known still"
    refusal = (await rig.ask("one two three four five", id="second")).refusal
    assert refusal is not None
    assert refusal.code == "quota_exceeded"


async def test_what_was_granted_to_an_instance_that_is_fenced_by_now_lets_no_request_in(
    rig: Rig, quotas: Quotas
) -> None:
    quotas.set(100)
    await rig.ask("one", id="first")
    quotas.open.clear()
    [lease] = quotas.keeper.ledger.leases()
    reply, _ = rig.send(" ".join(["word"] * (lease.left + 1)), id="second")
    while not quotas.keeper._waiting and not any(ask.need for call in quotas.calls for ask in call[:1]):
        await asyncio.sleep(0.01)
    give = quotas.keeper._serve

    def served_as_the_instance_changes(*args: Any) -> None:
        give(*args)
        quotas.keeper.rebind("2")  # in the same turn of the loop, before the request goes on

    quotas.keeper._serve = served_as_the_instance_changes  # type: ignore[method-assign, assignment]
    quotas.open.set()
    refusal = (await reply.wait()).refusal
    assert refusal is not None
    assert (refusal.code, refusal.retryable) == ("unavailable", True)
    assert len(await rig.events("embedding.requested")) == 1


async def test_who_waited_for_a_request_whose_outcome_found_no_room_reserves_what_it_uses(
    rig: Rig, quotas: Quotas
) -> None:
    quotas.set(100)
    rig.provider.gate.clear()
    first, _ = rig.send("one two three", stream=True, cache="off")
    await rig.provider.called.wait()
    second, _ = rig.send("one two three", cache="off")
    submit, full = rig.appender.submit, [QueueFull()]

    def once_full(event: NewEvent, *args: Any, **options: Any) -> None:
        if event.type == "embedding.generated" and full:
            raise full.pop()
        submit(event, *args, **options)

    rig.appender.submit = once_full  # type: ignore[method-assign]
    rig.provider.gate.set()
    assert (await first.wait()).refusal is not None
    answer = (await second.wait()).answer
    assert answer is not None
    assert not full
    assert held(quotas) == (answer.usage.billed_tokens, 0)
    [outcome] = await rig.events("embedding.generated")
    assert isinstance(outcome, EmbeddingGenerated)
    assert outcome.instance == rig.service.instance, "else nobody counts it for a gateway that died"


async def test_what_is_free_is_let_in_though_a_budget_is_used_up_and_overdrawn(quotas: Quotas) -> None:
    prices = PriceBook()
    prices.apply(PriceSet(price="free", model="m", provider="p", effective_from=0, unit_pico_usd=0))
    rig = await make_rig(gates=[quotas.gate], prices=prices)
    try:
        quotas.bank.leases[2] = quotas.bank.used[2] = 50
        quotas.set(10, "nano_usd")
        assert (await rig.ask("one", id="first")).refusal is None
        await quotas.keeper.once()
        [lease] = quotas.keeper.ledger.leases()
        assert lease.left == -40, "others have used 50 of 10"
        assert (await rig.ask("one two", id="second")).refusal is None
        live = LeasedQuotas(quotas.plane, quotas.keeper, quotas.gate)
        assert live.refusal("acme", "a1", "m", 5, 0) is None
        assert live.refusal("acme", "a1", "m", 5, 1) is not None
    finally:
        await rig.service.close()
        await rig.appender.close()
