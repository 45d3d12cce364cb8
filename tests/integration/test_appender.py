"""The group-commit appender: batches, order, back-pressure, and an unreachable log, on the double and on Postgres."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest

from adapters.appender import Appender, AppenderClosed, QueueFull
from adapters.embedded import EmbeddedServices
from adapters.memory.event_log import MemoryEventLog
from adapters.postgres.event_log import PostgresEventLog
from adapters.postgres.migrator import migrate
from adapters.postgres.pool import Connection, connect
from domain.ports.event_log import Appended, AppendStatus, InstanceFenced, LogUnavailable, NewEvent
from tests.conformance.conftest import new_event
from tests.support.databases import with_user
from tests.support.proxy import CuttingProxy
from tests.support.transactions import waiting_for_the_lock
from tests.support.waiting import until


class GatedLog(MemoryEventLog):
    """A log whose appends wait for `gate`, are recorded, and fail or lose their answer on request."""

    def __init__(self) -> None:
        super().__init__()
        self.batches: list[list[NewEvent]] = []
        self.gate = asyncio.Event()
        self.gate.set()
        self.sent = asyncio.Event()
        self.in_flight = 0
        self.faults: list[Exception] = []
        self.lose_answers = 0

    async def append(self, instance: UUID, events: Sequence[NewEvent]) -> list[Appended]:
        self.batches.append(list(events))
        self.in_flight += 1
        assert self.in_flight == 1, "two batches in flight"
        self.sent.set()
        try:
            await self.gate.wait()
            if self.faults:
                raise self.faults.pop(0)
            outcomes = await super().append(instance, events)
        finally:
            self.in_flight -= 1
        if self.lose_answers:
            self.lose_answers -= 1
            raise LogUnavailable("the answer was lost")
        return outcomes


@pytest.fixture
def log() -> GatedLog:
    return GatedLog()


@pytest.fixture
async def instance(log: GatedLog) -> UUID:
    return await log.register_instance("appender tests", 60)


Make = Callable[..., Appender]


@pytest.fixture
async def make(log: GatedLog, instance: UUID) -> AsyncIterator[Make]:
    made: list[Appender] = []

    def make(**settings: Any) -> Appender:
        made.append(Appender(log, instance, first_backoff=0.001, max_backoff=0.002, **settings))
        return made[-1]

    yield make
    log.gate.set()
    for appender in made:
        await appender.close(timeout=1)


async def test_what_is_submitted_together_goes_in_one_batch_in_order(log: GatedLog, make: Make) -> None:
    appender = make()
    events = [new_event() for _ in range(10)]
    outcomes = await asyncio.gather(*map(appender.append, events))
    assert [outcome.position for outcome in outcomes] == list(range(1, 11))
    assert log.batches == [events]
    assert (appender.events, appender.batches, appender.queued) == (10, 1, 0)


async def test_a_lone_event_does_not_wait_for_others(log: GatedLog, make: Make) -> None:
    appender = make()
    for position in (1, 2, 3):
        assert (await appender.append(new_event())).position == position
    assert [len(batch) for batch in log.batches] == [1, 1, 1]


async def test_what_comes_while_a_batch_is_in_flight_goes_together_in_the_next_up_to_the_limit(
    log: GatedLog, make: Make
) -> None:
    appender = make(max_batch=4)
    log.gate.clear()
    waiting = [asyncio.create_task(appender.append(new_event()))]
    await log.sent.wait()
    waiting += [asyncio.create_task(appender.append(new_event())) for _ in range(9)]
    await asyncio.sleep(0)  # one turn of the loop: each of them has submitted its event
    log.gate.set()
    assert [outcome.position for outcome in await asyncio.gather(*waiting)] == list(range(1, 11))
    assert [len(batch) for batch in log.batches] == [1, 4, 4, 1]


async def test_callbacks_run_in_order_and_never_inside_submit(make: Make) -> None:
    appender = make()
    called: list[int] = []
    for n in range(5):
        appender.submit(new_event(), lambda outcome, n=n: called.append(n))  # type: ignore[misc]  # mypy cannot type the default
    assert called == []
    assert await appender.drain(5)
    assert called == [0, 1, 2, 3, 4]


async def test_an_exception_in_one_callback_is_reported_and_harms_no_other(make: Make) -> None:
    appender = make()
    reported: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda loop, context: reported.append(context))
    called: list[Appended | Exception] = []

    def broken(outcome: object) -> None:
        raise ValueError("broken callback")

    appender.submit(new_event(), called.append)
    appender.submit(new_event(), broken)
    appender.submit(new_event(), called.append)
    assert await appender.drain(5)
    assert [outcome.position for outcome in called if isinstance(outcome, Appended)] == [1, 3]
    assert [str(context["exception"]) for context in reported] == ["broken callback"]


async def test_an_unreachable_log_gets_the_same_events_again_until_it_is_back(log: GatedLog, make: Make) -> None:
    appender = make()
    health: list[bool] = []
    appender.on_health(health.append)
    log.faults = [LogUnavailable("down")] * 3
    event = new_event()
    assert (await appender.append(event)).status is AppendStatus.APPENDED
    assert log.batches == [[event]] * 4
    assert health == [False, True]
    assert appender.healthy


async def test_a_lost_answer_is_asked_for_again_and_nothing_is_written_twice(log: GatedLog, make: Make) -> None:
    appender = make()
    log.lose_answers = 1
    outcomes = await asyncio.gather(*(appender.append(new_event()) for _ in range(3)))
    assert [(o.status, o.position) for o in outcomes] == [(AppendStatus.DUPLICATE, n) for n in (1, 2, 3)]
    assert await log.head() == 3


async def test_a_batch_without_an_answer_counts_as_ill_health_until_it_comes(log: GatedLog, make: Make) -> None:
    appender = make(slow_seconds=0.01)
    changed = asyncio.Event()
    appender.on_health(lambda healthy: changed.set())
    log.gate.clear()
    waiting = asyncio.create_task(appender.append(new_event()))
    await asyncio.wait_for(changed.wait(), 5)
    assert not appender.healthy
    log.gate.set()
    await waiting
    assert appender.healthy


async def test_refusable_events_are_refused_at_the_soft_bound_and_others_taken_up_to_the_hard_one(
    log: GatedLog, make: Make
) -> None:
    appender = make(soft_bound=3, hard_bound=5)
    called: list[object] = []
    log.gate.clear()
    appender.submit(new_event(), called.append)
    await log.sent.wait()
    for _ in range(3):
        appender.submit(new_event(), called.append, refusable=True)
    with pytest.raises(QueueFull):
        appender.submit(new_event(), called.append, refusable=True)
    for _ in range(2):
        appender.submit(new_event(), called.append)
    with pytest.raises(QueueFull):
        appender.submit(new_event(), called.append)
    with pytest.raises(QueueFull):
        appender.submit_many([new_event()], called.append)
    log.gate.set()
    assert await appender.drain(5)
    assert len(called) == 6
    assert await log.head() == 6


async def test_many_submitted_as_one_are_answered_as_one(make: Make) -> None:
    appender = make()
    answers: list[list[Appended | Exception]] = []
    appender.submit_many([], answers.append)
    appender.submit_many([new_event() for _ in range(3)], answers.append)
    assert await appender.drain(5)
    assert [len(answer) for answer in answers] == [0, 3]


async def test_a_fenced_instance_fails_everything_queued_and_says_so_once(
    log: GatedLog, instance: UUID, make: Make
) -> None:
    fenced: list[bool] = []
    appender = make(on_fenced=lambda: fenced.append(True), max_batch=1)
    await log.fence_instance(instance)
    outcomes = await asyncio.gather(*(appender.append(new_event()) for _ in range(3)), return_exceptions=True)
    assert [type(outcome) for outcome in outcomes] == [InstanceFenced] * 3
    assert not appender.healthy
    with pytest.raises(InstanceFenced):
        await appender.append(new_event())
    assert fenced == [True]
    assert await log.head() == 0


async def test_a_cancelled_wait_does_not_unsend_the_event(log: GatedLog, make: Make) -> None:
    appender = make()
    log.gate.clear()
    waiting = asyncio.create_task(appender.append(new_event()))
    await log.sent.wait()
    waiting.cancel()
    log.gate.set()
    assert await appender.drain(5)
    assert waiting.cancelled() or waiting.cancelling()
    assert await log.head() == 1


async def test_a_defect_of_the_log_is_told_to_its_senders_and_the_next_batch_goes_on(log: GatedLog, make: Make) -> None:
    appender = make()
    log.faults = [ZeroDivisionError("a defect")]
    with pytest.raises(ZeroDivisionError):
        await appender.append(new_event())
    assert (await appender.append(new_event())).position == 1


async def test_an_event_that_the_log_chokes_on_fails_alone(
    log: GatedLog, make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    choking = [new_event() for _ in range(9)]
    append = log.append

    async def choke(instance: UUID, events: Sequence[NewEvent]) -> list[Appended]:
        if choking[5] in events:
            raise ZeroDivisionError("a defect")
        return await append(instance, events)

    monkeypatch.setattr(log, "append", choke)
    asyncio.get_running_loop().set_exception_handler(lambda _loop, _context: None)
    appender = make()
    outcomes = await asyncio.gather(*(appender.append(event) for event in choking), return_exceptions=True)
    assert [isinstance(outcome, ZeroDivisionError) for outcome in outcomes] == [i == 5 for i in range(9)]
    assert await log.head() == 8


async def test_draining_says_whether_everything_was_answered_in_time(log: GatedLog, make: Make) -> None:
    appender = make()
    assert await appender.drain(0)
    log.gate.clear()
    appender.submit(new_event(), lambda outcome: None)
    assert not await appender.drain(0.01)
    log.gate.set()
    assert await appender.drain(5)


async def test_closing_answers_what_is_left(log: GatedLog, make: Make) -> None:
    appender = make()
    log.gate.clear()
    left = [asyncio.create_task(appender.append(new_event())) for _ in range(3)]
    await log.sent.wait()
    await appender.close(timeout=0.01)
    assert [type(o) for o in await asyncio.gather(*left, return_exceptions=True)] == [AppenderClosed] * 3
    with pytest.raises(AppenderClosed):
        await appender.append(new_event())
    await appender.close()


async def test_each_batch_is_told_before_its_callbacks(make: Make) -> None:
    told: list[str] = []
    appender = make(on_batch=lambda outcomes: told.append(f"batch of {len(outcomes)}"))
    appender.submit(new_event(), lambda outcome: told.append("callback"))
    assert await appender.drain(5)
    assert told == ["batch of 1", "callback"]


@pytest.fixture
async def postgres_log(migrated_dsn: str) -> AsyncIterator[PostgresEventLog]:
    made = await PostgresEventLog.connect(with_user(migrated_dsn, "emberlog_gateway"))
    yield made
    await made.close()


@asynccontextmanager
async def lock_held(owner_dsn: str) -> AsyncIterator[Connection]:
    """The log's lock in other hands: whatever is sent meanwhile waits for the end of the block."""
    owner = await connect(owner_dsn, "owner", role=False)
    try:
        async with owner.transaction():
            await owner.execute("SELECT emberlog.lock_log()")
            yield owner
    finally:
        await owner.close()


async def test_a_cancelled_wait_unsends_nothing_and_harms_no_other_of_its_batch(
    postgres_log: PostgresEventLog, migrated_dsn: str
) -> None:
    appender = Appender(postgres_log, await postgres_log.register_instance("x", 600))
    events = [new_event() for _ in range(6)]
    async with lock_held(migrated_dsn) as owner:
        waiting = [asyncio.create_task(appender.append(event)) for event in events[:3]]
        await waiting_for_the_lock(owner)
        waiting += [asyncio.create_task(appender.append(event)) for event in events[3:]]
        await asyncio.sleep(0)
        waiting[1].cancel()  # of the batch on its way
        waiting[4].cancel()  # of what is queued behind it
    outcomes = await asyncio.gather(*waiting, return_exceptions=True)
    assert [o.position if isinstance(o, Appended) else type(o) for o in outcomes] == [
        1, asyncio.CancelledError, 3, 4, asyncio.CancelledError, 6,
    ]  # fmt: skip
    assert [event.event_id for event in await postgres_log.read(0, 10)] == [event.event_id for event in events]
    assert (await appender.append(events[4])).status is AppendStatus.DUPLICATE
    await appender.close()


async def test_a_batch_cancelled_on_its_way_is_there_whole_or_not_at_all_and_the_log_goes_on(
    postgres_log: PostgresEventLog, migrated_dsn: str
) -> None:
    instance = await postgres_log.register_instance("x", 600)
    events = [new_event() for _ in range(5)]
    async with lock_held(migrated_dsn) as owner:
        sending = asyncio.create_task(postgres_log.append(instance, events))
        await waiting_for_the_lock(owner)
        sending.cancel()
        with pytest.raises(asyncio.CancelledError):
            await sending
    assert (await postgres_log.append(instance, [last := new_event()]))[0].status is AppendStatus.APPENDED
    outcomes = await postgres_log.append(instance, events)
    assert len({outcome.status for outcome in outcomes}) == 1
    stored = [event.event_id for event in await postgres_log.read(0, 10)]
    assert sorted(stored) == sorted(event.event_id for event in [*events, last])


async def test_an_appender_waits_out_a_lock_held_too_long_and_writes_everything(
    postgres_log: PostgresEventLog, migrated_dsn: str
) -> None:
    health: list[bool] = []
    appender = Appender(postgres_log, await postgres_log.register_instance("x", 600), first_backoff=0.01)
    appender.on_health(health.append)
    owner = await connect(migrated_dsn, "owner", role=False)
    await owner.execute("ALTER FUNCTION emberlog.append SET lock_timeout = '50ms'")
    await owner.close()
    async with lock_held(migrated_dsn):
        waiting = [asyncio.create_task(appender.append(new_event())) for _ in range(3)]
        await until(lambda: health == [False], what="the appender notices")
    assert [outcome.position for outcome in await asyncio.gather(*waiting)] == [1, 2, 3]
    assert health == [False, True]
    await appender.close()


async def test_through_a_line_that_is_cut_again_and_again_every_event_is_written_once_and_in_order(
    migrated_dsn: str,
) -> None:
    dsn = with_user(migrated_dsn, "emberlog_gateway")
    async with CuttingProxy.before_postgres(dsn) as proxy:
        log = await PostgresEventLog.connect(proxy.postgres_dsn(dsn))
        appender = Appender(
            log, await log.register_instance("x", 600), first_backoff=0.001, max_backoff=0.01, max_batch=16
        )
        events = [new_event() for _ in range(600)]
        waiting = []
        for n, event in enumerate(events):
            waiting.append(asyncio.create_task(appender.append(event)))
            if n % 10 == 0:
                await asyncio.sleep(0)
            if n % 100 == 50:
                await until(lambda: appender.batches > 1, what="batches go through")
                proxy.cut()
        outcomes = await asyncio.gather(*waiting)
        assert [outcome.position for outcome in outcomes] == list(range(1, 601))
        assert proxy.accepted > 3
        await appender.close()
        await log.close()
    direct = await PostgresEventLog.connect(dsn)
    stored = await direct.read(0, 1000)
    assert [event.event_id for event in stored] == [event.event_id for event in events]
    await direct.close()


async def test_a_backend_killed_without_warning_under_load_loses_nothing_and_writes_nothing_twice(
    data_dir: Path,
) -> None:
    services = await EmbeddedServices.start(data_dir, valkey=False)
    async with services:
        await migrate(services.owner_dsn)
        log = await PostgresEventLog.connect(services.owner_dsn)
        appender = Appender(
            log, await log.register_instance("x", 600), first_backoff=0.01, max_backoff=0.1, max_batch=32
        )
        events = [new_event() for _ in range(2000)]
        outcomes: list[Appended | Exception] = []
        for n, event in enumerate(events):
            appender.submit(event, outcomes.append)
            if n % 100 == 0:
                await asyncio.sleep(0)
            if n == 1000:
                await until(lambda: appender.batches > 3, what="batches go through")
                assert log._connection is not None
                os.kill(log._connection.get_server_pid(), signal.SIGKILL)  # the whole server recovers from it
        assert await appender.drain(60)
        assert [outcome.position for outcome in outcomes if isinstance(outcome, Appended)] == list(range(1, 2001))
        assert [event.event_id for event in await log.read(0, 5000)] == [event.event_id for event in events]
        await appender.close()
        await log.close()
