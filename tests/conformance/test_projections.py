"""What every projection promises, whatever it shows: one owner, view and cursor together, and the same view however the log was folded."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any
from uuid import UUID

import asyncpg
import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from adapters.postgres.event_log import PostgresEventLog
from domain import upcasters
from domain.events import EVENT_TYPES, EmbeddingGenerated, EventData
from domain.upcasters import UnknownSchema
from projections import cursor, parking
from projections.compare import digest
from projections.connect import connect
from projections.cursor import STALLED_SECONDS, Standing, State
from projections.fresh import fold_fresh
from projections.projection import GapInLog, Ousted, Projection
from projections.runner import ALL, Runner
from projections.usage import USAGE
from tests.support.databases import with_user
from tests.support.histories import histories
from tests.support.projecting import Connection, Recorded, some_history, write_log
from tests.support.views import (
    DEEP,
    LEASE,
    PLAIN,
    empty,
    fold_to,
    heal,
    live_digest,
    make_poison,
    own,
    plain,
    poison,
    rows_of,
    tasting,
    text_of,
)
from tests.support.waiting import until

HISTORY = some_history(600, seconds=400)
ROOT = Path(__file__).parents[2]


@pytest.fixture(params=DEEP, ids=lambda p: p.name)
def projection(request: pytest.FixtureRequest) -> Projection:
    made: Projection = request.param
    return made


@pytest.fixture
async def app(app_dsn: str) -> AsyncIterator[Connection]:
    connection = await connect(app_dsn, "conformance")
    yield connection
    await connection.close()


@pytest.fixture
async def bulk(app_dsn: str) -> AsyncIterator[Connection]:
    connection = await connect(app_dsn, "conformance in bulk", bulk=True)
    yield connection
    await connection.close()


every_view = pytest.mark.parametrize("projection", ALL, ids=lambda p: p.name)


def before_the_cursor(projection: Projection, function: str) -> Projection:
    """The projection, with a call of a test's SQL function between the view and the cursor."""
    merge = f"WITH merged AS ({projection.merge} RETURNING 1) SELECT {function}($1::bigint, $2::bigint) FROM (SELECT count(*) FROM merged) m"
    return msgspec.structs.replace(projection, merge=merge)


async def make_function(owner: Connection, name: str, body: str) -> None:
    await owner.execute(
        f"CREATE FUNCTION public.{name}(a bigint, b bigint) RETURNS void LANGUAGE plpgsql SECURITY DEFINER AS $$ BEGIN {body} END $$"
    )


async def position(owner: Connection, projection: Projection) -> int:
    return await owner.fetchval("SELECT position FROM projections.cursors WHERE name = $1", projection.name) or 0


def test_every_projection_has_a_plain_fold_to_be_held_against() -> None:
    assert set(PLAIN) == {p.name for p in ALL}


@every_view
async def test_batches_of_any_size_and_in_bulk_give_the_view_of_the_plain_fold(
    owner: Connection, app: Connection, bulk: Connection, projection: Projection
) -> None:
    found = []
    for connection, batch in ((app, 1), (app, 7), (app, 1000), (bulk, 7), (bulk, 1000)):
        await empty(owner, [projection])
        head = await write_log(owner, HISTORY)
        await fold_to(connection, projection, head, batch, bulk=connection is bulk)
        assert await rows_of(app, projection) == plain(projection, HISTORY)
        found.append(await live_digest(app, projection))
    assert len(set(found)) == 1


@every_view
async def test_replaying_the_log_gives_the_view_byte_for_byte(
    owner: Connection, app: Connection, bulk: Connection, projection: Projection
) -> None:
    head = await write_log(owner, HISTORY)
    await fold_to(app, projection, head, 13)
    live = await text_of(app, projection, f"projections.{projection.name}")
    table, time = await fold_fresh(bulk, projection, head, None)
    assert live
    assert await text_of(bulk, projection, table) == live
    assert await digest(bulk, projection, table, time) == await live_digest(app, projection)


async def test_one_event_less_or_one_number_off_is_another_digest(
    owner: Connection, app: Connection, bulk: Connection, projection: Projection
) -> None:
    """Negative control of every comparison by digest and with the plain fold."""
    head = await write_log(owner, HISTORY)
    await fold_to(app, projection, head)
    whole = await live_digest(app, projection)
    lost = next(n for n, e in enumerate(HISTORY, 1) if e.data.TYPE == "embedding.generated")
    assert plain(projection, HISTORY, [lost]) != plain(projection, HISTORY)
    table, time = await fold_fresh(bulk, projection, head, None, skip=[lost])
    assert await digest(bulk, projection, table, time) != whole
    column = re.findall(r"^    (\w+) bigint\b(?!\[)", projection.table, re.MULTILINE)[-1]
    changed = await app.execute(
        f"UPDATE {projection.table_of(1)} SET {column} = {column} + 1 WHERE ctid IN (SELECT ctid FROM {projection.table_of(1)} "
        f"WHERE {column} IS NOT NULL LIMIT 1)"
    )  # fmt: skip
    assert changed == "UPDATE 1"
    assert await live_digest(app, projection) != whole


async def test_the_digest_does_not_depend_on_the_order_of_rows_in_the_table(
    owner: Connection, app: Connection, projection: Projection
) -> None:
    head = await write_log(owner, HISTORY)
    await fold_to(app, projection, head, 7)
    before = await live_digest(app, projection)
    table = projection.table_of(1)
    await app.execute(f"CREATE TEMP TABLE turned AS TABLE {table}")
    await app.execute(f"DELETE FROM {table}")
    await app.execute(
        f"INSERT INTO {table} SELECT * FROM turned ORDER BY {', '.join(f'{k} DESC' for k in projection.key)}"
    )
    assert await live_digest(app, projection) == before


@every_view
@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(history=histories(), cuts=st.lists(st.integers(1, 24), max_size=6), in_bulk=st.booleans())
async def test_any_history_cut_anywhere_equals_the_plain_fold(
    migrated_dsn: str, projection: Projection, history: list[Recorded], cuts: list[int], in_bulk: bool
) -> None:
    owner, app = await _two(migrated_dsn)
    try:
        await empty(owner, [projection])
        head = await write_log(owner, history)
        for end in sorted({c for c in cuts if c < head} | {head}):
            await fold_to(app, projection, end, bulk=in_bulk)
        fence = await own(app, projection)
        await cursor.prune(app, projection, fence, await cursor.look(app, projection))
        assert await rows_of(app, projection) == plain(projection, history)
    finally:
        await _close(owner, app)


@every_view
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(history=histories(), data=st.data())
async def test_events_folded_late_in_any_order_give_the_view_as_if_they_had_come_in_time(
    migrated_dsn: str, projection: Projection, history: list[Recorded], data: st.DataObject
) -> None:
    late = data.draw(st.permutations(range(1, len(history) + 1)).flatmap(
        lambda order: st.integers(0, len(order)).map(lambda n: order[:n])
    ))  # fmt: skip
    owner, app = await _two(migrated_dsn)
    try:
        await empty(owner, [projection])
        head = await write_log(owner, history)
        fence = await own(app, projection)
        for at in range(1, head + 1):
            if at in late:
                await cursor.park(app, projection, 1, fence, at, "late", LEASE)
            else:
                await cursor.fold(app, projection, 1, fence, at - 1, at, LEASE)
            await cursor.prune(app, projection, fence, await cursor.look(app, projection))
        assert await rows_of(app, projection) == plain(projection, history, late)
        for at in late:
            await parking.retry(app, projection, at)
        assert await rows_of(app, projection) == plain(projection, history)
        assert (await cursor.look(app, projection)).parked == 0
    finally:
        await _close(owner, app)


@every_view
async def test_pruning_at_any_time_makes_no_difference(
    owner: Connection, app: Connection, projection: Projection
) -> None:
    """An outcome comes after the row of its request was pruned in one view, and before in the other."""
    history = [
        Recorded(e.at + timedelta(days=days), e.tenant, e.data)
        for days in (0, 29, 31, 60, 62)
        for e in some_history(40, start=datetime(2026, 1, 1, tzinfo=UTC))
    ]
    found = []
    for often in (False, True):
        await empty(owner, [projection])
        head = await write_log(owner, history)
        for end in range(10, head + 10, 10):
            await fold_to(app, projection, min(head, end))
            if often:
                fence = await own(app, projection)
                await cursor.prune(app, projection, fence, await cursor.look(app, projection))
        assert await rows_of(app, projection) == plain(projection, history)
        found.append(await live_digest(app, projection))
    assert found[0] == found[1]


async def _two(dsn: str) -> tuple[Connection, Connection]:
    return await asyncpg.connect(dsn), await connect(with_user(dsn, "emberlog_gateway"), "conformance")


async def _close(*connections: Connection) -> None:
    for connection in connections:
        await connection.close()


async def test_a_crash_between_view_and_cursor_leaves_neither(
    owner: Connection, app: Connection, app_dsn: str, projection: Projection
) -> None:
    await owner.execute("CREATE SEQUENCE public.crashes")
    await make_function(
        owner, "crash", "PERFORM nextval('public.crashes'); PERFORM pg_terminate_backend(pg_backend_pid());"
    )  # fmt: skip
    head = await write_log(owner, HISTORY)
    runner = Runner(app_dsn, [before_the_cursor(projection, "public.crash")], batch=50, poll_seconds=0.02)
    await runner.start()
    try:
        await until(lambda: owner.fetchval("SELECT is_called FROM public.crashes"), what="the server ends the session")
        assert await rows_of(owner, projection) == []
        assert await position(owner, projection) == 0
    finally:
        await runner.stop()
    await fold_to(app, projection, head)
    assert await rows_of(app, projection) == plain(projection, HISTORY)


async def test_crashes_at_any_point_of_a_batch_count_nothing_twice(
    owner: Connection, app_dsn: str, projection: Projection
) -> None:
    """The session dies at every third batch: by turns between view and cursor, and at the commit."""
    await owner.execute("CREATE SEQUENCE public.folds")
    await make_function(
        owner, "sometimes", "IF nextval('public.folds') % 6 = 2 THEN PERFORM pg_terminate_backend(pg_backend_pid()); END IF;"
    )  # fmt: skip
    await owner.execute("""
        CREATE FUNCTION public.at_commit() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER AS $$ BEGIN
            IF (SELECT last_value FROM public.folds) % 6 = 5 AND new.position <> old.position THEN
                PERFORM nextval('public.folds');
                PERFORM pg_terminate_backend(pg_backend_pid());
            END IF;
            RETURN NULL;
        END $$;
        CREATE CONSTRAINT TRIGGER at_commit AFTER UPDATE ON projections.cursors DEFERRABLE INITIALLY DEFERRED
            FOR EACH ROW EXECUTE FUNCTION public.at_commit();
    """)
    history = HISTORY[:200]
    head = await write_log(owner, history)
    folding = before_the_cursor(projection, "public.sometimes")
    runner = Runner(app_dsn, [folding], batch=50, lease_seconds=0.5, poll_seconds=0.02)
    await runner.start()
    try:
        await runner.wait_for(projection.name, head, 60)
    finally:
        await runner.stop()
    assert await owner.fetchval("SELECT last_value FROM public.folds") > 5
    assert await rows_of(owner, projection) == plain(projection, history)


async def test_with_the_cursor_in_a_transaction_of_its_own_a_crash_counts_twice(
    owner: Connection, app: Connection
) -> None:
    """Negative control: the same events, the same statements, but the view is committed before the cursor."""
    head = await write_log(owner, HISTORY)
    await app.execute(
        USAGE.merge_sql("projections.usage_1", f"({USAGE.delta_sql()})"), 0, head
    )  # commits; here the process would die, and the next one starts from the cursor
    await fold_to(app, USAGE, head)
    assert await rows_of(app, USAGE) != plain(USAGE, HISTORY)


async def test_two_runners_at_once_fold_each_event_once(
    owner: Connection, app_dsn: str, projection: Projection
) -> None:
    runners = [Runner(app_dsn, [projection], batch=batch, poll_seconds=0.02) for batch in (3, 5)]
    for runner in runners:
        await runner.start()
    try:
        for start in range(0, len(HISTORY), 60):
            head = await write_log(owner, HISTORY[start : start + 60])
            # Both believe by turns that the other is gone.
            await owner.execute("UPDATE projections.cursors SET lease_until = '-infinity'")
            for runner in runners:
                runner.wake()
            await runners[0].wait_for(projection.name, head - 30, 20)
        for runner in runners:
            await runner.wait_for(projection.name, head, 20)
        fence = "SELECT fence FROM projections.cursors"
        while await owner.fetchval(fence) == 1:  # it may have been renewed before anybody saw that it had run out
            await owner.execute("UPDATE projections.cursors SET lease_until = '-infinity'")
            for runner in runners:
                runner.wake()
    finally:
        for runner in runners:
            await runner.stop()
    assert await rows_of(owner, projection) == plain(projection, HISTORY)


async def test_an_owner_that_returns_late_changes_nothing(
    owner: Connection, app: Connection, projection: Projection
) -> None:
    head = await write_log(owner, HISTORY)
    late = await own(app, projection, UUID(int=1))
    taken = await own(app, projection, UUID(int=2))
    for act in (
        cursor.fold(app, projection, 1, late, 0, head, LEASE),
        cursor.park(app, projection, 1, late, 1, "late", LEASE),
        cursor.renew(app, projection, 1, late, LEASE),
    ):
        with pytest.raises(Ousted):
            await act
    await cursor.release(app, projection, 1, late)
    await cursor.halt(app, projection, 1, late, 1, "late")
    assert (await cursor.look(app, projection)).error is None
    assert await rows_of(app, projection) == []
    assert await cursor.acquire(app, projection, 1, UUID(int=3), LEASE) is None
    await cursor.fold(app, projection, 1, taken, 0, head, LEASE)
    assert await rows_of(app, projection) == plain(projection, HISTORY)


async def test_a_cursor_that_was_moved_meanwhile_refuses_the_batch(
    owner: Connection, app: Connection, projection: Projection
) -> None:
    head = await write_log(owner, HISTORY)
    fence = await own(app, projection)
    await cursor.fold(app, projection, 1, fence, 0, 10, LEASE)
    with pytest.raises(Ousted):
        await cursor.fold(app, projection, 1, fence, 0, head, LEASE)
    assert await rows_of(app, projection) == plain(projection, HISTORY[:10])


async def test_a_process_stopped_by_a_signal_is_replaced_and_harms_nothing_when_it_goes_on(
    owner: Connection, app_dsn: str, projection: Projection
) -> None:
    code = (
        "import asyncio, sys\nfrom projections.runner import ALL, Runner\n"
        f"chosen = [p for p in ALL if p.name == {projection.name!r}]\n"
        f"asyncio.run(Runner({app_dsn!r}, chosen, batch=1, lease_seconds=1, poll_seconds=0.01).run())"
    )
    process = await asyncio.create_subprocess_exec(sys.executable, "-c", code, cwd=ROOT)
    runner = Runner(app_dsn, [projection], lease_seconds=1, poll_seconds=0.02)
    try:
        head = await write_log(owner, HISTORY[:300])
        await until(lambda: position(owner, projection), what="the other process folds", timeout=20)
        os.kill(process.pid, signal.SIGSTOP)
        await runner.start()
        await runner.wait_for(projection.name, head, 30)
        os.kill(process.pid, signal.SIGCONT)
        head = await write_log(owner, HISTORY[300:])
        await runner.wait_for(projection.name, head, 30)
        assert await rows_of(owner, projection) == plain(projection, HISTORY)
    finally:
        await runner.stop()
        process.kill()
        await process.wait()


@asynccontextmanager
async def owner_silent_in_a_preparation(app_dsn: str, projection: Projection) -> AsyncIterator[None]:
    """An owner that holds the cursor's row, has had a statement prepared, and says no more: for Postgres it is at work."""
    settings = {"idle_in_transaction_session_timeout": "100"}
    connection = await connect(app_dsn, f"projection {projection.name}", settings)
    fence = await own(connection, projection)
    await connection.execute("UPDATE projections.cursors SET lease_until = '-infinity'")
    transaction = connection.transaction()
    await transaction.start()
    await cursor.hold(connection, projection, 1, fence, 0)
    prepared = await connection.prepare("SELECT 1")
    try:
        yield
    finally:
        connection.terminate()
        del prepared


async def test_an_owner_whose_line_goes_silent_while_a_statement_is_prepared_is_replaced(
    owner: Connection, app_dsn: str, projection: Projection
) -> None:
    head = await write_log(owner, HISTORY)
    runner = Runner(app_dsn, [projection], lease_seconds=0.3, poll_seconds=0.02)
    async with owner_silent_in_a_preparation(app_dsn, projection):
        await runner.start()
        try:
            await runner.wait_for(projection.name, head, 20)
        finally:
            await runner.stop()
    assert await rows_of(owner, projection) == plain(projection, HISTORY)


async def test_without_ending_it_such_an_owner_would_keep_the_view(
    owner: Connection, app_dsn: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Negative control: Postgres's own timeout for idle transactions, a tenth of a second here, does not end it."""
    asked = 0

    async def nobody(*_: object) -> int:
        nonlocal asked
        asked += 1
        return 0

    monkeypatch.setattr(cursor, "end_stuck", nobody)
    await write_log(owner, HISTORY[:20])
    runner = Runner(app_dsn, [ALL[0]], lease_seconds=0.3, poll_seconds=0.02)
    async with owner_silent_in_a_preparation(app_dsn, ALL[0]):
        await runner.start()
        try:
            await until(lambda: asked > 30, what="the row was found locked again and again")
            assert await position(owner, ALL[0]) == 0
        finally:
            await runner.stop()


async def test_a_gap_in_the_log_is_folded_by_nobody(owner: Connection, app: Connection, projection: Projection) -> None:
    await write_log(owner, HISTORY[:5])
    await owner.execute(
        "INSERT INTO emberlog.events SELECT 9, gen_random_uuid(), tenant, stream, version, type, schema_version, recorded_at, data, "
        "content_hash FROM emberlog.events WHERE position = 2"
    )
    with pytest.raises(GapInLog, match="positions 1 to 9 hold 6 events, expected 9"):
        await fold_to(app, projection, 9)
    assert await position(owner, projection) == 0
    assert await rows_of(app, projection) == []


async def test_an_event_of_a_schema_from_the_future_is_folded_by_nobody(
    owner: Connection, app: Connection, projection: Projection
) -> None:
    await write_log(owner, HISTORY[:20])
    head = await write_log(owner, HISTORY[20:40], schema_version=2)
    with pytest.raises(UnknownSchema, match=r"position (2[1-9]|3\d|40) has a schema version this build does not know"):
        await fold_to(app, projection, head)
    assert await rows_of(app, projection) == []


async def test_events_of_an_old_schema_fold_as_what_they_are_upcast_to(
    owner: Connection, app: Connection, app_dsn: str, projection: Projection, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`generated` called its agent `who` in version 1 of this test's own history."""

    def encode(data: EventData) -> bytes:
        fields = msgspec.to_builtins(data)
        if isinstance(data, EmbeddingGenerated):
            fields["who"] = fields.pop("agent")
        return msgspec.json.encode(fields)

    def step(fields: dict[str, Any]) -> dict[str, Any]:
        return {**{k: v for k, v in fields.items() if k != "who"}, "agent": fields["who"]}

    newer = type("Newer", (EmbeddingGenerated,), {"SCHEMA": 2}, frozen=True)
    monkeypatch.setitem(EVENT_TYPES, "embedding.generated", newer)
    monkeypatch.setitem(upcasters.STEPS, ("embedding.generated", 1), step)
    begun = await write_log(owner, HISTORY[:301], encode=encode)
    head = begun
    for event in HISTORY[301:]:
        head = await write_log(owner, [event], schema_version=2 if isinstance(event.data, EmbeddingGenerated) else 1)
    log = await PostgresEventLog.connect(app_dsn, pool_size=1, readers=1)
    try:
        for batch in (7, 400):
            await fold_to(app, projection, (await cursor.look(app, projection)).position + 200, batch, log.read)
        await fold_to(app, projection, head, 400, log.read, bulk=True)
        assert await rows_of(app, projection) == plain(projection, HISTORY)
    finally:
        await log.close()
    with pytest.raises(
        GapInLog
    ):  # negative control: without anybody to bring them in today's shape they are not folded as they lie
        await fold_fresh(app, projection, begun, None)


async def test_a_view_that_went_on_without_events_equals_a_clean_fold_once_they_are_folded(
    owner: Connection, app: Connection, app_dsn: str, projection: Projection
) -> None:
    """Halt (or park), go on, mend, retry: by a running worker, as operators do it."""
    await make_poison(owner)
    bad = [5, 6, 123, 124, 301]
    await poison(owner, *bad)
    head = await write_log(owner, HISTORY)
    runner = Runner(app_dsn, [tasting(projection)], batch=100, poll_seconds=0.02)
    await runner.start()
    try:
        if projection.halts:
            for at in bad:
                await until(partial(halted_before, app, projection, at), what=f"the view halts before {at}", timeout=20)
                assert await rows_of(app, projection) == plain(projection, HISTORY[: at - 1], bad)
                assert (await parking.park(app, projection)).position == at
        await until(partial(stands_at, app, projection, head), what="the view goes on", timeout=20)
    finally:
        await runner.stop()
    assert await rows_of(app, projection) == plain(projection, HISTORY, bad)
    assert [p.position for p in await parking.list_parked(app, projection.name)] == bad
    await heal(owner)
    for at in reversed(bad):
        await parking.retry(app, projection, at)
    assert await rows_of(app, projection) == plain(projection, HISTORY)
    table, time = await fold_fresh(app, projection, head, None)
    assert await digest(app, projection, table, time) == await live_digest(app, projection)


async def halted_before(app: Connection, projection: Projection, at: int) -> bool:
    return (await cursor.look(app, projection)).failed_position == at


async def stands_at(app: Connection, projection: Projection, at: int) -> bool:
    return (await cursor.look(app, projection)).position == at


SHAPES = {
    "columns": "SELECT attname, format_type(atttypid, atttypmod), attnotnull, attnum FROM pg_attribute WHERE attrelid = $1 AND attnum > 0 "
    "ORDER BY attnum",
    "constraints": "SELECT contype, pg_get_constraintdef(oid) AS is FROM pg_constraint WHERE conrelid = $1 ORDER BY 1, 2",
    "indexes": "SELECT pg_get_indexdef(indexrelid) AS is FROM pg_index WHERE indrelid = $1 ORDER BY 1",
    "options": "SELECT reloptions, relpersistence, relowner FROM pg_class WHERE oid = $1",
}


@every_view
@pytest.mark.parametrize("what", SHAPES)
async def test_the_table_of_a_new_generation_is_like_that_of_the_migrations(
    app: Connection, projection: Projection, what: str
) -> None:
    await app.execute(projection.create_sql(projection.table_of(2)))
    shapes = []
    for generation in (1, 2):
        table = projection.table_of(generation)
        oid = await app.fetchval("SELECT $1::text::regclass::oid", table)
        rows = [[str(value) for value in row] for row in await app.fetch(SHAPES[what], oid)]
        shapes.append(sorted([_unnamed(value, table) for value in row] for row in rows))
    assert shapes[0]
    assert shapes[1] == shapes[0]


def _unnamed(text: str, table: str) -> str:
    """A definition without the names that differ from table to table."""
    return re.sub(r"INDEX \S+ ON", "INDEX ON", text.replace(table, "TABLE"))


def standing(**more: Any) -> Standing:
    seen = Standing(1, 10, 100, lag_seconds=5.0, still_seconds=0.1, fence=1, free=False)
    return msgspec.structs.replace(seen, **more)


@pytest.mark.parametrize(
    ("seen", "state"),
    [
        (standing(position=100, lag_seconds=0.0, still_seconds=9e9), State.LIVE),
        (standing(lag_seconds=0.9, still_seconds=0.9), State.LIVE),
        (standing(), State.LAGGING),
        (standing(lag_seconds=9e9), State.LAGGING),
        (standing(lag_seconds=STALLED_SECONDS, still_seconds=9e9), State.LAGGING),
        (standing(lag_seconds=STALLED_SECONDS + 0.1, still_seconds=STALLED_SECONDS + 0.1), State.STALLED),
        (standing(lag_seconds=9e9, still_seconds=9e9, error="why", failed_position=11), State.HALTED),
        (standing(lag_seconds=0.0, error="why", failed_position=11), State.HALTED),
    ],
)
def test_stalled_is_told_from_lagging_and_both_from_halted(seen: Standing, state: State) -> None:
    assert seen.state is state


async def test_the_database_tells_stalled_from_lagging_and_both_from_halted(
    owner: Connection, app: Connection, projection: Projection
) -> None:
    async def state() -> State:
        return (await cursor.look(app, projection)).state

    assert await state() is State.LIVE  # nothing to fold
    head = await write_log(owner, HISTORY)  # its events are months old
    await fold_to(app, projection, 100)
    assert await state() is State.LAGGING  # it has just moved
    await app.execute(
        "UPDATE projections.cursors SET updated_at = updated_at - $1::interval", timedelta(seconds=STALLED_SECONDS + 1)
    )
    assert await state() is State.STALLED
    fence = await own(app, projection)
    await cursor.halt(app, projection, 1, fence, 101, "why")
    assert await state() is State.HALTED
    await fold_to(app, projection, head)
    assert await state() is State.LIVE
