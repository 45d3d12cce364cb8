"""Lines that break in the middle of a word or go silent, and servers that are ended under load: nothing lost, nothing twice, no manual step."""

from __future__ import annotations

import asyncio
import os
import random
import signal
import time
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from uuid import UUID

import asyncpg
import pytest

import adapters.postgres.event_log
import adapters.postgres.pool
from adapters.appender import Appender
from adapters.embedded import EmbeddedServices
from adapters.postgres.event_log import PostgresEventLog
from adapters.postgres.migrator import migrate
from adapters.postgres.pool import Connection
from domain.events import EventData, encode_data
from domain.ports.event_log import Appended, AppendStatus, LogUnavailable, NewEvent
from tests.conformance.conftest import new_event
from tests.support.projecting import (
    Recorded,
    generated,
    plain_requests,
    plain_usage,
    request_rows,
    requested,
    some_history,
    usage_rows,
    write_log,
)
from tests.support.proxy import CuttingProxy
from tests.support.transactions import waiting_for_the_lock
from tests.support.views import DEEP, running
from tests.support.waiting import until

HISTORY = some_history(600)
VIEWS = ("usage", "requests")


@pytest.fixture
async def proxy(app_dsn: str) -> AsyncIterator[CuttingProxy]:
    async with CuttingProxy.before_postgres(app_dsn) as made:
        yield made


@pytest.fixture
async def direct(app_dsn: str) -> AsyncIterator[PostgresEventLog]:
    made = await PostgresEventLog.connect(app_dsn)
    yield made
    await made.close()


@pytest.fixture
async def log(app_dsn: str, proxy: CuttingProxy) -> AsyncIterator[PostgresEventLog]:
    """The log through the proxy."""
    made = await PostgresEventLog.connect(proxy.postgres_dsn(app_dsn), pool_size=1, readers=1)
    yield made
    await made.close()


@pytest.fixture
async def instance(direct: PostgresEventLog) -> UUID:
    return await direct.register_instance("fault tests", 600)


async def assert_equals_plain_folds(owner: Connection, history: list[Recorded]) -> None:
    assert await usage_rows(owner) == plain_usage(history)
    assert await request_rows(owner) == plain_requests(history)


# -- a line that is cut -------------------------------------------------------------------------------------------------


async def test_an_append_cut_at_any_byte_is_there_whole_or_not_at_all_and_the_retry_writes_it_once(
    proxy: CuttingProxy, log: PostgresEventLog, direct: PostgresEventLog, instance: UUID
) -> None:
    await log.append(instance, [new_event()])
    there = lost = 0
    for cut in (*({"asked": n} for n in range(0, 5000, 450)), *({"answered": n} for n in range(0, 130, 9))):
        head = await direct.head()
        batch = [new_event(stream=f"tenant/{head}", expected_version=n) for n in range(20)]
        proxy.cut_after(**cut)
        cuts = proxy.cuts
        try:
            outcomes = await log.append(instance, batch)
        except LogUnavailable:
            assert proxy.cuts == cuts + 1
            # The server may still be at it; what it makes of it is known when the lock is free.
            outcomes = await direct.append(instance, batch)
            statuses = {outcome.status for outcome in outcomes}
            assert len(statuses) == 1, "half a batch was written"
            there, lost = there + (statuses == {AppendStatus.DUPLICATE}), lost + (statuses == {AppendStatus.APPENDED})
        assert [outcome.position for outcome in outcomes] == list(range(head + 1, head + 21))
        assert await direct.head() == head + 20
        proxy.cut_after()
        await log.append(instance, batch)  # over a new connection, or the old one
    assert there > 3, "no cut came behind the commit"
    assert lost > 3, "no cut came before the commit"


async def test_a_reader_cut_in_the_middle_of_answers_goes_on_where_it_was_and_sees_every_event_once(
    proxy: CuttingProxy, log: PostgresEventLog, direct: PostgresEventLog, instance: UUID
) -> None:
    events = [new_event(data=b'{"filler": "%s"}' % (b"x" * 900)) for _ in range(400)]
    await direct.append(instance, events)
    seen: list[bytes] = []
    refused = 0
    distances = iter([0, 1, 5, 100, 1_000, 7_000, 20_000, 20_001, 60_000, 90_000] * 3)
    while len(seen) < len(events):
        if (distance := next(distances, None)) is not None:
            proxy.cut_after(answered=distance)
        try:
            seen += [event.event_id for event in await log.read(len(seen), 50)]
        except LogUnavailable:
            refused += 1
    assert seen == [event.event_id for event in events]
    assert refused > 10


async def test_a_fold_cut_between_the_view_and_the_cursor_leaves_neither_and_is_done_again(
    owner: Connection, app_dsn: str, proxy: CuttingProxy
) -> None:
    head = await write_log(owner, HISTORY)
    await owner.execute("""
        CREATE FUNCTION public.wait_here() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER AS $$ BEGIN
            IF new.position <> old.position THEN PERFORM emberlog.lock_log(); END IF;
            RETURN new;
        END $$;
        CREATE TRIGGER wait_here BEFORE UPDATE ON projections.cursors FOR EACH ROW EXECUTE FUNCTION public.wait_here();
    """)
    async with running(proxy.postgres_dsn(app_dsn), *DEEP, batch=50, lease_seconds=2.0) as runner:
        async with owner.transaction():
            await owner.execute("SELECT emberlog.lock_log()")
            await waiting_for_the_lock(owner, 2)  # both views are written, both cursors about to move
            proxy.cut()
        assert await usage_rows(owner) == []
        assert await request_rows(owner) == []
        for name in VIEWS:
            await runner.wait_for(name, head, 60)
    await assert_equals_plain_folds(owner, HISTORY)


async def test_folds_cut_again_and_again_at_any_byte_equal_a_clean_fold(
    owner: Connection, app_dsn: str, proxy: CuttingProxy
) -> None:
    head = await write_log(owner, HISTORY)
    places = random.Random(7)
    cutting = True

    async def cut_once() -> None:
        way = places.choice(["asked", "answered"])
        proxy.cut_after(**{way: int(places.uniform(3_000, 40_000) if way == "asked" else places.uniform(500, 9_000))})
        before = proxy.cuts
        await until(lambda: proxy.cuts > before or not cutting, what="the next cut", timeout=60)

    async def cut_on() -> None:
        while cutting and proxy.cuts < 10:  # after each the worker rests, the longer the less it has got done since
            await cut_once()

    async with running(proxy.postgres_dsn(app_dsn), *DEEP, batch=7, lease_seconds=1.0) as runner:
        cutter = asyncio.create_task(cut_on())
        try:
            for name in VIEWS:
                await runner.wait_for(name, head, 120)
        finally:
            cutting = False
            await cutter
    assert proxy.cuts > 5
    await assert_equals_plain_folds(owner, HISTORY)


# -- a line that is silent ----------------------------------------------------------------------------------------------


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """The bounds of waiting for a server, in fractions of a second."""
    monkeypatch.setattr(adapters.postgres.event_log, "_APPEND_SECONDS", 0.3)
    monkeypatch.setattr(adapters.postgres.pool, "CONNECT_SECONDS", 0.3)
    make = asyncpg.create_pool
    monkeypatch.setattr(asyncpg, "create_pool", lambda *a, **k: make(*a, **k | {"command_timeout": 0.3}))


async def test_a_server_that_takes_connections_and_never_answers_is_out_of_reach(
    impatient: None, proxy: CuttingProxy, log: PostgresEventLog, instance: UUID, app_dsn: str
) -> None:
    proxy.pause()
    began = time.monotonic()
    for attempt in (lambda: log.read(0, 10), log.head, lambda: log.append(instance, [new_event()]), log.identity):
        with pytest.raises(LogUnavailable):
            await attempt()
    with pytest.raises(LogUnavailable):
        await PostgresEventLog.connect(proxy.postgres_dsn(app_dsn))
    assert time.monotonic() - began < 10
    proxy.resume()
    assert [o.status for o in await log.append(instance, [new_event()])] == [AppendStatus.APPENDED]


async def test_an_appender_on_a_silent_line_says_so_and_writes_everything_once_when_the_line_speaks_again(
    impatient: None, proxy: CuttingProxy, log: PostgresEventLog, direct: PostgresEventLog, instance: UUID
) -> None:
    appender = Appender(log, instance, first_backoff=0.01, max_backoff=0.05, max_batch=32)
    outcomes: list[Appended | Exception] = []
    events = [new_event() for _ in range(300)]
    for event in events[:100]:
        appender.submit(event, outcomes.append)
    await until(lambda: outcomes, what="the first batch is answered")
    proxy.pause()
    for event in events[100:]:
        appender.submit(event, outcomes.append)
    await until(lambda: not appender.healthy, what="the appender notices")
    accepted = proxy.accepted
    await until(lambda: proxy.accepted > accepted + 1, what="it tries again over new connections")
    proxy.resume()  # what was held back arrives now, from connections that their client has given up
    assert await appender.drain(30)
    assert appender.healthy
    await appender.close()
    assert [outcome.position for outcome in outcomes if isinstance(outcome, Appended)] == list(range(1, 301))
    assert [event.event_id for event in await direct.read(0, 1000)] == [event.event_id for event in events]


async def test_a_runner_on_a_silent_line_is_replaced_and_harms_nothing_when_the_line_speaks_again(
    owner: Connection, app_dsn: str, proxy: CuttingProxy
) -> None:
    head = await write_log(owner, HISTORY)
    async with running(proxy.postgres_dsn(app_dsn), *DEEP, batch=5, lease_seconds=0.5) as silent:
        await silent.wait_for("usage", 20, 20)
        proxy.pause()
        async with running(app_dsn, *DEEP, batch=50, lease_seconds=0.5) as other:
            for name in VIEWS:
                await other.wait_for(name, head, 90)
            await assert_equals_plain_folds(owner, HISTORY)
            proxy.resume()
            for name in VIEWS:
                await silent.wait_for(name, head, 90)
    await assert_equals_plain_folds(owner, HISTORY)


async def test_a_refusal_to_connect_is_never_taken_for_a_fault_of_the_events(
    monkeypatch: pytest.MonkeyPatch, direct: PostgresEventLog, instance: UUID
) -> None:
    # Postgres answers 22023, which in answer to an append would blame the data.
    monkeypatch.setattr(adapters.postgres.event_log, "_APPEND_SECONDS", -1)
    with pytest.raises(LogUnavailable, match="statement_timeout"):
        await direct.append(instance, [new_event(), new_event()])
    monkeypatch.undo()
    assert [o.status for o in await direct.append(instance, [new_event()])] == [AppendStatus.APPENDED]


# -- a server that is ended ---------------------------------------------------------------------------------------------


def _fact(data: EventData) -> NewEvent:
    return new_event(type=data.TYPE, data=encode_data(data), schema_version=data.SCHEMA)


async def until_more(outcomes: list[Appended | Exception]) -> None:
    before = len(outcomes)
    await until(lambda: len(outcomes) > before, what="batches go through", timeout=60)


@pytest.mark.parametrize(
    "number",
    [signal.SIGINT, signal.SIGQUIT, signal.SIGKILL],
    ids=["shut down fast", "shut down at once", "killed"],
)
async def test_a_server_ended_under_load_comes_back_and_writers_readers_and_views_go_on_by_themselves(
    data_dir: Path, number: signal.Signals
) -> None:
    services = await EmbeddedServices.start(
        data_dir, valkey=False, postgres_version=int(os.environ.get("EMBERLOG_TEST_POSTGRES", "18"))
    )
    async with services:
        await migrate(services.owner_dsn)
        await services.grant_app_role()
        log = await PostgresEventLog.connect(services.app_dsn)
        appender = Appender(
            log, await log.register_instance("x", 600), first_backoff=0.01, max_backoff=0.1, max_batch=32
        )
        facts = [
            data for n in range(1500) for data in (requested(f"r{n}", agent=f"a{n % 5}"), generated(f"r{n}", agent=f"a{n % 5}"))
        ]  # fmt: skip
        outcomes: list[Appended | Exception] = []
        seen: list[bytes] = []

        async def follow() -> None:
            while len(seen) < len(facts):
                try:
                    seen.extend([event.data for event in await log.read(len(seen), 100)])
                except LogUnavailable:
                    await asyncio.sleep(0.01)

        async def end_server() -> None:
            pid = services.postgres_pid
            assert pid is not None
            os.kill(pid, number)
            await until(lambda: services.postgres_pid not in (None, pid), what="a new server", timeout=60)

        async with running(services.app_dsn, *DEEP, batch=100) as runner:
            following = asyncio.create_task(follow())
            for third in range(3):
                for n, data in enumerate(facts[third * 1000 : third * 1000 + 1000]):
                    appender.submit(_fact(data), outcomes.append)
                    if n % 50 == 0:
                        await asyncio.sleep(0)
                if third < 2:
                    await until_more(outcomes)
                    await end_server()
            assert await appender.drain(60)
            assert [outcome.position for outcome in outcomes if isinstance(outcome, Appended)] == list(range(1, 3001))
            async with asyncio.timeout(60):
                await following
            for name in VIEWS:
                await runner.wait_for(name, len(facts), 90)
        assert len(seen) == len(facts)
        stored = await log.read(0, 5000)
        assert [event.data for event in stored] == seen
        history = [
            Recorded(datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=event.recorded_at), event.tenant, data)
            for event, data in zip(stored, facts, strict=True)
        ]
        owner = await asyncpg.connect(services.owner_dsn)
        try:
            await assert_equals_plain_folds(owner, history)
        finally:
            await owner.close()
        await appender.close()
        await log.close()
