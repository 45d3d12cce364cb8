"""Events that a view cannot fold: who halts, who goes on without, who is told, and how what is missing comes back."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import timedelta
from uuid import uuid4

import asyncpg
import msgspec
import pytest

from domain.events import EventData, ProjectionHalted, ProjectionParked
from projections import cursor, fresh, generations, parking
from projections.connect import connect
from projections.cursor import State
from projections.projection import Projection, Refused
from projections.projection import ProjectionHalted as Halted
from projections.rebuild import Rebuild
from projections.requests import REQUESTS
from projections.usage import USAGE
from tests.support.projecting import Connection, Recorded, generated, requested, some_history, write_log
from tests.support.views import DEEP, fold_to, heal, make_poison, own, plain, poison, rows_of, running, tasting
from tests.support.waiting import until

HISTORY = some_history(300)
LONG = timedelta(seconds=60)


@pytest.fixture
async def owner(migrated_dsn: str) -> AsyncIterator[Connection]:
    connection = await asyncpg.connect(migrated_dsn)
    await make_poison(connection)
    yield connection
    await connection.close()


@pytest.fixture
async def app(app_dsn: str) -> AsyncIterator[Connection]:
    connection = await connect(app_dsn, "parking tests")
    yield connection
    await connection.close()


async def test_one_view_halts_and_the_other_goes_on_without_the_event_and_both_say_so_once(
    owner: Connection, app_dsn: str, app: Connection
) -> None:
    head = await write_log(owner, HISTORY)
    await poison(owner, 77)
    told: list[EventData] = []
    async with running(app_dsn, *map(tasting, DEEP), batch=50, on_trouble=told.append) as runner:
        await runner.wait_for("requests", head, 20)
        with pytest.raises(Halted, match=r"usage.*stands at position 76"):
            await runner.wait_for("usage", head, 20)
        tried = len(told)
        await until(lambda: runner.lag()["usage"][1] > 0.3, what="it has been tried again meanwhile")
    why = "RaiseError: P0001: cannot fold"
    assert sorted(told, key=repr) == [
        ProjectionHalted(projection="usage", generation=1, failed_position=77, error=why),
        ProjectionParked(projection="requests", generation=1, failed_position=77, error=why),
    ]
    assert tried == 2
    usage, requests = await cursor.look(app, USAGE), await cursor.look(app, REQUESTS)
    assert (usage.state, usage.position, usage.failed_position, usage.error, usage.parked) == (
        State.HALTED, 76, 77, why, 0,
    )  # fmt: skip
    assert (requests.state, requests.position, requests.error, requests.parked) == (State.LIVE, head, None, 1)
    assert await rows_of(app, REQUESTS) == plain(REQUESTS, HISTORY, [77])
    assert "secret" not in why


async def test_an_operator_lets_a_halted_view_go_on_and_its_owner_does_so_at_once(
    owner: Connection, app_dsn: str, app: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("projections.worker.RETRY_SECONDS", (3600.0, 3600.0))  # by itself it would take an hour
    head = await write_log(owner, HISTORY)
    await poison(owner, 77)
    async with running(app_dsn, tasting(USAGE)) as runner:
        with pytest.raises(Halted):
            await runner.wait_for("usage", head, 20)
        skipped = await parking.park(app, USAGE)
        assert (skipped.position, skipped.generation) == (77, 1)
        await until(lambda: _at(app, USAGE, head), what="the view goes on")
    assert await rows_of(app, USAGE) == plain(USAGE, HISTORY, [77])
    [parked] = await parking.list_parked(app)
    assert (parked.projection, parked.position, parked.error) == ("usage", 77, "RaiseError: P0001: cannot fold")


async def _at(app: Connection, projection: Projection, position: int) -> bool:
    return (await cursor.look(app, projection)).position == position


class Newer(Projection, frozen=True):
    """A projection of a release that knows version 2 of every event it reads."""

    @property
    def schemas(self) -> list[int]:
        return [2] * len(self.types)


@pytest.mark.parametrize("projection", DEEP, ids=lambda p: p.name)
async def test_an_event_that_a_newer_release_wrote_waits_for_a_process_of_that_release(
    owner: Connection, app_dsn: str, app: Connection, projection: Projection
) -> None:
    """Neither parked nor lost: the older process gives the view back, and the newer one folds on without anybody's help."""
    await write_log(owner, HISTORY[:50])
    head = await write_log(owner, HISTORY[50:60], schema_version=2)
    async with running(app_dsn, projection, lease_seconds=3600) as older:
        with pytest.raises(Halted, match="schema version"):
            await older.wait_for(projection.name, head, 20)
        await until(lambda: _free(app, projection), what="it is given back")
        seen = await cursor.look(app, projection)
        first = next(n for n, e in enumerate(HISTORY, 1) if n > 50 and e.data.TYPE in projection.types)
        assert (seen.state, seen.failed_position, seen.parked) == (State.HALTED, first, 0)
        async with running(app_dsn, Newer(**msgspec.structs.asdict(projection)), lease_seconds=3600):
            await until(lambda: _at(app, projection, head), what="the newer process goes on", timeout=20)
            await until(lambda: older.lag()[projection.name][0] == 0, what="the older process has seen it")
    assert await rows_of(app, projection) == plain(projection, HISTORY[:60])


async def _free(app: Connection, projection: Projection) -> bool:
    return (await cursor.look(app, projection)).free


@pytest.mark.parametrize("projection", DEEP, ids=lambda p: p.name)
async def test_a_gap_in_the_log_halts_every_view_and_parks_nothing(
    owner: Connection, app_dsn: str, app: Connection, projection: Projection
) -> None:
    await write_log(owner, HISTORY[:5])
    await owner.execute(
        "INSERT INTO emberlog.events SELECT 9, gen_random_uuid(), tenant, stream, version, type, schema_version, recorded_at, data, "
        "content_hash FROM emberlog.events WHERE position = 2"
    )
    async with running(app_dsn, projection) as runner:
        with pytest.raises(Halted, match="GapInLog"):
            await runner.wait_for(projection.name, 9, 20)
    seen = await cursor.look(app, projection)
    assert (seen.position, seen.failed_position, seen.parked) == (5, 6, 0)


@pytest.mark.parametrize("order", [(3, 4, 5), (5, 4, 3), (4, 3, 5)])
async def test_an_attempt_shows_what_came_last_in_the_log_whenever_it_was_folded(
    owner: Connection, app: Connection, order: tuple[int, ...]
) -> None:
    """The requested and the outcomes of one attempt, some of them late: positions decide."""
    at = HISTORY[0].at
    history = [
        Recorded(at, "t", requested("x", instance="first")),
        Recorded(at, "t", generated("x", provider="old")),
        Recorded(at, "t", requested("x", instance="second", model="other")),
        Recorded(at, "t", generated("x", provider="new", model="other")),
        Recorded(at, "t", generated("y")),
    ]
    await write_log(owner, history)
    await fold_to(app, REQUESTS, 2)
    fence = await own(app, REQUESTS)
    for position in (3, 4, 5):
        await cursor.park(app, REQUESTS, 1, fence, position, "late", LONG)
    for position in order:
        await parking.retry(app, REQUESTS, position)
    rows = await rows_of(app, REQUESTS)
    assert rows == plain(REQUESTS, history)
    assert (rows[0][3], rows[0][6], rows[0][7]) == ("generated", "new", "second")


async def test_what_waits_is_folded_only_when_it_can_be_and_given_up_once(owner: Connection, app: Connection) -> None:
    head = await write_log(owner, HISTORY)
    folding = tasting(REQUESTS)
    await poison(owner, 7, 9)
    fence = await own(app, REQUESTS)
    start = 0
    for position in (7, 9):
        await cursor.fold(app, folding, 1, fence, start, position - 1, LONG)
        await cursor.park(app, folding, 1, fence, position, "why", LONG)
        start = position
    await fold_to(app, folding, head)
    with pytest.raises(
        Refused, match=r"position 7 still cannot be folded: RaiseError: P0001: cannot fold\. It stays parked"
    ):
        await parking.retry(app, folding, 7)
    assert [p.position for p in await parking.list_parked(app)] == [7, 9]
    for position in (1, 8, head + 1):
        for act in (parking.retry, parking.discard):
            with pytest.raises(Refused, match=f"no event at position {position} waits"):
                await act(app, folding, position)
    await parking.discard(app, folding, 9)
    for act in (parking.retry, parking.discard):
        with pytest.raises(Refused, match=r"no event at position 9 waits .*folded by a rebuild only"):
            await act(app, folding, 9)
    with pytest.raises(Refused, match="not halted"):
        await parking.park(app, folding)
    await heal(owner)
    assert await parking.retry(app, folding, 7) == 1
    assert await rows_of(app, REQUESTS) == plain(REQUESTS, HISTORY, [9])
    assert [(p.position, p.discarded_at is not None) for p in await parking.list_parked(app, "requests")] == [(9, True)]
    assert (await cursor.look(app, REQUESTS)).parked == 0, "what was given up waits for nobody"
    assert (await fresh.verify(app, folding, None)).differing == 0


async def test_what_another_generation_takes_the_place_of_is_not_changed_any_more(
    owner: Connection, app_dsn: str, app: Connection
) -> None:
    """A retry that waits for the moment of the flip folds into the generation that is read afterwards, or into none."""
    head = await write_log(owner, HISTORY)
    fence = await own(app, REQUESTS)
    await cursor.park(app, REQUESTS, 1, fence, 1, "by hand", LONG)
    await fold_to(app, REQUESTS, head)
    assert not (await Rebuild(app_dsn, REQUESTS).run()).flipped
    other = await connect(app_dsn, "flip")
    try:
        taken, _ = await generations.take_building(other, REQUESTS, uuid4())
        transaction = other.transaction()
        await transaction.start()
        await generations.flip(other, REQUESTS, 1, taken, None)
        retry = asyncio.ensure_future(parking.retry(app, REQUESTS, 1))
        await until(lambda: owner.fetchval(
            "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'emberlog parking tests' AND wait_event_type = 'Lock'"
        ), what="the retry waits")  # fmt: skip
        await transaction.commit()
        with pytest.raises(Refused, match="being replaced by another generation"):
            await retry
    finally:
        await other.close()
    assert await rows_of(app, REQUESTS) == plain(REQUESTS, HISTORY)
    with pytest.raises(Refused, match="no event at position 1 waits"):
        await parking.retry(app, REQUESTS, 1)


async def test_a_lock_or_a_full_disk_parks_nothing(owner: Connection, app_dsn: str, app: Connection) -> None:
    """What says nothing about the event is tried again until it passes."""
    head = await write_log(owner, HISTORY)
    await owner.execute("""
        CREATE SEQUENCE public.tries;
        CREATE OR REPLACE FUNCTION public.taste(a bigint, b bigint) RETURNS boolean LANGUAGE plpgsql AS $$ BEGIN
            IF nextval('public.tries') <= 3 THEN RAISE 'no space left' USING ERRCODE = 'disk_full'; END IF;
            RETURN true;
        END $$;
        GRANT USAGE ON SEQUENCE public.tries TO emberlog_app;
    """)
    told: list[EventData] = []
    async with running(app_dsn, tasting(REQUESTS), batch=1, on_trouble=told.append) as runner:
        await runner.wait_for("requests", head, 30)
    assert told == []
    assert (await cursor.look(app, REQUESTS)).parked == 0
    assert await rows_of(app, REQUESTS) == plain(REQUESTS, HISTORY)
