"""Rebuilding a view while it is in use: nobody notices, what differs is named, and whoever dies over it is followed by another."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import uuid4

import asyncpg
import msgspec
import pytest

from adapters.embedded import EmbeddedServices
from adapters.postgres.event_log import PostgresEventLog
from adapters.postgres.migrator import migrate
from domain.events import encode_data
from domain.ports.event_log import NewEvent
from projections import cursor, fresh, generations, parking
from projections.compare import digest
from projections.connect import connect
from projections.generations import take_building, take_retired
from projections.projection import Projection, Refused
from projections.rebuild import Rebuild
from projections.requests import REQUESTS
from projections.usage import USAGE
from tests.support.archiving import WIDTH, age, archive_all
from tests.support.databases import with_user
from tests.support.projecting import Connection, Recorded, some_history, start_over, write_log
from tests.support.views import (
    DEEP,
    LEASE,
    fold_to,
    heal,
    live_digest,
    make_poison,
    own,
    plain,
    poison,
    rows_of,
    running,
    tasting,
)
from tests.support.waiting import until

HISTORY = some_history(600)
BAD = next(n for n, e in enumerate(HISTORY, 1) if n > 120 and e.data.TYPE == "embedding.generated")
"""The position of an event that every view reads."""
ROOT = Path(__file__).parents[2]


@pytest.fixture(params=DEEP, ids=lambda p: p.name)
def projection(request: pytest.FixtureRequest) -> Projection:
    made: Projection = request.param
    return made


@pytest.fixture
async def app(app_dsn: str) -> AsyncIterator[Connection]:
    connection = await connect(app_dsn, "rebuild tests", bulk=True)
    yield connection
    await connection.close()


async def states(owner: Connection, projection: Projection) -> dict[int, str]:
    rows = await owner.fetch("SELECT generation, state FROM projections.cursors WHERE name = $1", projection.name)
    return {row["generation"]: row["state"] for row in rows}


async def expire(owner: Connection) -> None:
    """Time passes: the lease of whoever builds and is gone runs out."""
    await owner.execute("UPDATE projections.cursors SET lease_until = '-infinity' WHERE state = 'building'")


# What a reader sees in one statement: where the view stands, what it counts, and what the log says of that.
COUNTED = {
    "usage": (
        "SELECT c.position, (SELECT coalesce(sum(requests + failed + abandoned + reembedded), 0)::bigint FROM projections.usage "
        "WHERE grain = 60) AS seen, (SELECT count(*) FROM emberlog.events e WHERE e.position <= c.position AND e.type = ANY($1)) AS told "
        "FROM projections.cursors c WHERE c.name = 'usage' AND c.state = 'live'"
    ),
    "requests": (
        "SELECT c.position, (SELECT count(*) FROM projections.requests) AS seen, (SELECT count(DISTINCT (e.tenant, e.data->>'request_id', "
        "e.data->>'attempt')) FROM emberlog.events e WHERE e.position <= c.position AND e.type = ANY($1)) AS told "
        "FROM projections.cursors c WHERE c.name = 'requests' AND c.state = 'live'"
    ),
}


async def test_under_load_a_rebuild_takes_the_views_place_and_no_reader_notices(
    owner: Connection, migrated_dsn: str, app_dsn: str, app: Connection, projection: Projection
) -> None:
    """One appends, a runner folds, others read all the time; twice a new generation takes over."""
    history = some_history(30_000, seconds=0.5)
    rebuilt, done = asyncio.Event(), asyncio.Event()
    written = await write_log(owner, history[:1_000])

    async def append() -> None:
        nonlocal written
        connection = await asyncpg.connect(migrated_dsn)
        try:
            while written < len(history) and not rebuilt.is_set():
                written = await write_log(connection, history[written : written + 20])
                runner.wake()
        finally:
            await connection.close()

    seen: list[tuple[int, int]] = []

    async def read() -> None:
        connection = await asyncpg.connect(app_dsn)
        try:
            newest = (0, 0)
            while not done.is_set():
                row = await connection.fetchrow(COUNTED[projection.name], projection.types)
                assert row is not None, "the view is always there"
                assert row["seen"] == row["told"], "nothing is missing and nothing is twice"
                assert (row["position"], row["seen"]) >= newest
                newest = row["position"], row["seen"]
                seen.append(newest)
        finally:
            await connection.close()

    async with running(app_dsn, projection) as runner:
        await runner.wait_for(projection.name, written, 20)
        tasks = [asyncio.create_task(work()) for work in (append, read, read)]
        try:
            for generation in (2, 3):
                before = written
                result = await Rebuild(app_dsn, projection).run()
                assert (result.flipped, result.digest, result.differing) == (True, result.before, 0)
                await runner.wait_for(projection.name, written, 60)  # the worker goes on with the new generation
                assert await states(owner, projection) == {generation - 1: "retired", generation: "live"}
                assert before < written < len(history), "events were appended all the time"
            rebuilt.set()
            await tasks[0]
            await runner.wait_for(projection.name, written, 60)
        finally:
            rebuilt.set()
            done.set()
            found = await asyncio.gather(*tasks, return_exceptions=True)
        assert found == [None, None, None]
    assert len(set(seen)) > 2
    assert seen[0][1] > 0
    assert await rows_of(app, projection) == plain(projection, history[:written])


async def test_a_reader_would_notice_a_view_that_is_swapped_half_way(
    owner: Connection, app: Connection, projection: Projection
) -> None:
    """Negative control of the reader above: the new generation is read before it has caught up."""
    head = await write_log(owner, HISTORY)
    await fold_to(app, projection, head)
    await app.execute(projection.create_sql(projection.table_of(2)))
    await app.execute(f"CREATE OR REPLACE VIEW projections.{projection.name} AS TABLE {projection.table_of(2)}")
    row = await app.fetchrow(COUNTED[projection.name], projection.types)
    assert row is not None
    assert row["seen"] != row["told"]


async def test_a_rebuild_adds_nothing_to_the_log_and_leaves_the_old_generation_as_it_was(
    owner: Connection, app_dsn: str, app: Connection, projection: Projection
) -> None:
    head = await write_log(owner, HISTORY)
    await fold_to(app, projection, head)
    before = await live_digest(app, projection)
    result = await Rebuild(app_dsn, projection).run()
    assert await owner.fetchval("SELECT position FROM emberlog.head()") == head
    assert (result.generation, result.previous, result.position, result.events) == (2, 1, head, head)
    assert (result.digest, result.before, result.resumed) == (before, before, False)
    assert await live_digest(app, projection) == before
    assert await rows_of(app, projection, projection.table_of(1)) == await rows_of(app, projection)


async def test_what_others_were_granted_on_a_view_and_built_on_it_outlives_a_rebuild(
    owner: Connection, app_dsn: str, app: Connection
) -> None:
    head = await write_log(owner, HISTORY)
    await fold_to(app, USAGE, head)
    await owner.execute("CREATE VIEW public.report AS SELECT sum(nano_usd) AS total FROM projections.usage")
    await owner.execute("GRANT SELECT ON projections.usage TO pg_monitor")
    before = await owner.fetchval("SELECT total FROM public.report")
    assert (await Rebuild(app_dsn, USAGE).run()).flipped
    assert await owner.fetchval("SELECT total FROM public.report") == before > 0
    assert await owner.fetchval("SELECT has_table_privilege('pg_monitor', 'projections.usage', 'SELECT')")
    await owner.execute("TRUNCATE projections.usage_2")
    assert await owner.fetchval("SELECT total FROM public.report") is None, "it reads the new generation"


async def test_a_table_with_other_columns_takes_the_views_place_too(
    owner: Connection, app_dsn: str, app: Connection
) -> None:
    """As after an upgrade to a release whose table has one more."""
    head = await write_log(owner, HISTORY)
    await fold_to(app, REQUESTS, head)
    fence = await own(app, REQUESTS)
    await app.execute("CREATE TABLE projections.requests_2 (tenant text, other integer)")
    await app.execute(
        "INSERT INTO projections.cursors (name, generation, position, state) VALUES ('requests', 2, $1, 'building')",
        head,
    )
    built = generations.Building(2, head, fence)
    await app.execute("UPDATE projections.cursors SET fence = $1 WHERE generation = 2", fence)
    assert await generations.flip(app, REQUESTS, 1, built, None) == head
    row = await app.fetch(
        "SELECT attname FROM pg_attribute WHERE attrelid = 'projections.requests'::regclass ORDER BY attnum"
    )
    assert [r["attname"] for r in row] == ["tenant", "other"]


PLANTED = {
    "changed": {
        "usage": "UPDATE {table} SET nano_usd = nano_usd + 1, requests = 0 WHERE grain = 3600 AND tenant = 't1' AND requests > 0",
        "requests": "UPDATE {table} SET code = 'planted' WHERE state = 'failed' AND tenant = 't1'",
    },
    "missing": {
        "usage": "DELETE FROM {table} WHERE grain = 60 AND tenant = 't2' AND bucket < '2026-03-02T00:00:00Z'",
        "requests": "DELETE FROM {table} WHERE tenant = 't2' AND state = 'open'",
    },
    "extra": {
        "usage": "INSERT INTO {table} SELECT grain, bucket, 'planted', agent, model, provider, requests, failed, cancelled, late, abandoned, "
        "reembedded, inputs, cached_inputs, tokens, billed_tokens, nano_usd, unpriced, provider_nano_usd, provider_unpriced, "
        "latency_ms_sum, latency_ms_max, latency_bins FROM {table} WHERE tenant = 't1' AND grain = 3600",
        "requests": "INSERT INTO {table} SELECT 'planted', request_id, attempt, state, agent, model, provider, instance, code, "
        "requested_position, requested_at, outcome_position, outcome_at FROM {table} WHERE tenant = 't1' AND state = 'failed'",
    },
}


@pytest.mark.parametrize("kind", PLANTED)
async def test_a_planted_difference_is_named_and_keeps_the_new_generation_from_taking_over(
    owner: Connection, app_dsn: str, app: Connection, projection: Projection, kind: str
) -> None:
    head = await write_log(owner, HISTORY)
    await fold_to(app, projection, head)
    truth = {row[: len(projection.key)]: row for row in await rows_of(app, projection)}
    done = await owner.execute(PLANTED[kind][projection.name].replace("{table}", projection.table_of(1)))
    planted = int(done.split()[-1])
    view = {row[: len(projection.key)]: row for row in await rows_of(app, projection)}
    wrong = sorted(k for k in view.keys() | truth.keys() if view.get(k) != truth.get(k))
    assert len(wrong) == planted > 0

    found = await fresh.verify(app, projection, None)
    result = await Rebuild(app_dsn, projection).run()
    assert found.digest != found.expected
    assert (result.before, result.digest, result.flipped) == (found.digest, found.expected, False)
    assert await states(owner, projection) == {1: "live", 2: "building"}
    for count, named in ((found.differing, found.differences), (result.differing, result.differences)):
        assert count == planted
        assert len(named) == min(planted, 20)
        assert {d.kind for d in named} == {kind}
        keys = [_key(projection, d.key) for d in named]
        assert set(keys) <= {tuple(map(_plain, k)) for k in wrong}
        if kind == "changed":
            assert {frozenset(d.columns) for d in named} == {
                frozenset({"usage": ("nano_usd", "requests"), "requests": ("code",)}[projection.name])
            }
        for d in named:
            assert all(mine != log for mine, log in d.columns.values())

    accepted = await Rebuild(app_dsn, projection).run(accept_differences=True)
    assert (accepted.flipped, accepted.resumed, accepted.events, accepted.differing) == (True, True, 0, planted)
    assert {row[: len(projection.key)]: row for row in await rows_of(app, projection)} == truth
    after = await fresh.verify(app, projection, None)
    assert (after.digest, after.differing) == (after.expected, 0)


def _plain(value: Any) -> Any:
    return value.astimezone(UTC) if isinstance(value, datetime) else value


def _key(projection: Projection, key: dict[str, Any]) -> tuple[Any, ...]:
    assert tuple(key) == projection.key
    return tuple(datetime.fromisoformat(v) if c == "bucket" else v for c, v in key.items())


async def test_a_comparison_that_leaves_a_column_out_misses_what_was_planted_in_it(
    owner: Connection, app: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Negative control: the whole row has to be compared."""
    head = await write_log(owner, HISTORY)
    await fold_to(app, USAGE, head)
    await owner.execute("UPDATE projections.usage_1 SET nano_usd = nano_usd + 1")
    columns = "grain, bucket, tenant, agent, model, provider, requests, latency_bins"
    monkeypatch.setattr(
        Projection,
        "rows_sql",
        lambda _, table: f"SELECT {columns} FROM {table} WHERE $1::timestamptz IS NOT DISTINCT FROM $1",
    )
    found = await fresh.verify(app, USAGE, None)
    assert (found.digest, found.differing) == (found.expected, 0)


class Process:
    """A rebuild (or rollback) in a process of its own, which goes on only as far as it is let."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self.process = process

    @classmethod
    async def start(cls, dsn: str, projection: Projection, batch: int, *action: str) -> Process:
        return cls(
            await asyncio.create_subprocess_exec(
                sys.executable,
                "-m",
                "tests.support.rebuilding",
                dsn,
                projection.name,
                str(batch),
                *action,
                cwd=ROOT,
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.PIPE,
            )
        )

    async def reach(self, position: int) -> None:
        """Let it go on until it has folded that much; it waits there."""
        assert self.process.stdout is not None
        async with asyncio.timeout(30):
            while True:
                line = (await self.process.stdout.readline()).decode().strip()
                assert line.isdecimal(), f"{line} {await self._errors()}"
                if int(line) >= position:
                    return
                self._let_go_on()

    def _let_go_on(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(b"\n")

    async def _errors(self) -> str:
        assert self.process.stderr is not None
        return (await self.process.stderr.read()).decode()

    async def end(self) -> tuple[int, str]:
        """Let it run to its end; returns its exit code and what it said last, or went wrong."""
        async with asyncio.timeout(30):
            out, error = await self.process.communicate(b"\n" * 1000)
        assert self.process.returncode is not None
        return self.process.returncode, (error or out).decode().strip().splitlines()[-1]

    async def kill(self) -> None:
        if self.process.returncode is None:
            os.kill(self.process.pid, signal.SIGKILL)
        await self.process.communicate()


async def test_a_rebuild_that_was_killed_is_gone_on_with_from_where_it_stood(
    owner: Connection, app_dsn: str, app: Connection, projection: Projection
) -> None:
    head = await write_log(owner, HISTORY)
    await fold_to(app, projection, head)
    killed = await Process.start(app_dsn, projection, 100)
    await killed.reach(300)
    await killed.kill()
    assert await states(owner, projection) == {1: "live", 2: "building"}
    with pytest.raises(Refused, match="under way in another process"):
        await Rebuild(app_dsn, projection).run()  # nobody knows yet that it is dead
    await expire(owner)
    result = await Rebuild(app_dsn, projection).run()
    assert (result.resumed, result.events, result.generation) == (True, head - 300, 2)
    assert (result.flipped, result.digest) == (True, result.before)
    assert await rows_of(app, projection) == plain(projection, HISTORY)


async def test_a_rebuild_that_dies_as_it_takes_the_views_place_has_changed_nothing(
    owner: Connection, app_dsn: str, app: Connection, projection: Projection
) -> None:
    head = await write_log(owner, HISTORY)
    await fold_to(app, projection, head)
    await owner.execute("""
        CREATE FUNCTION public.die() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER AS $$ BEGIN
            PERFORM pg_terminate_backend(pg_backend_pid()); RETURN NULL;
        END $$;
        CREATE CONSTRAINT TRIGGER die AFTER UPDATE ON projections.cursors DEFERRABLE INITIALLY DEFERRED
            FOR EACH ROW WHEN (new.state = 'live' AND old.state = 'building') EXECUTE FUNCTION public.die();
    """)
    with pytest.raises((asyncpg.PostgresError, asyncpg.InterfaceError, OSError)):
        await Rebuild(app_dsn, projection).run()
    assert await states(owner, projection) == {1: "live", 2: "building"}
    assert await rows_of(app, projection) == plain(projection, HISTORY)
    await owner.execute("DROP TRIGGER die ON projections.cursors")
    result = await Rebuild(app_dsn, projection).run()  # at once: who fails gives the lease back
    assert (result.resumed, result.events, result.flipped) == (True, 0, True)


async def test_whoever_interrupts_a_rebuild_can_go_on_at_once(
    owner: Connection, app_dsn: str, app: Connection, projection: Projection, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As by Ctrl-C: the lease is given back, and nothing that was folded is lost."""
    monkeypatch.setattr("projections.pace.BATCH", 100)
    head = await write_log(owner, HISTORY)
    await fold_to(app, projection, head)

    def interrupt(position: int, upto: int) -> None:
        if position >= 300:
            task.cancel()

    task = asyncio.create_task(Rebuild(app_dsn, projection, progress=interrupt).run())
    with pytest.raises(asyncio.CancelledError):
        await task
    result = await Rebuild(app_dsn, projection).run()
    assert (result.resumed, result.flipped) == (True, True)
    assert result.events <= head - 300


async def test_of_two_rebuilds_at_once_the_second_is_refused_and_the_first_ends_well(
    owner: Connection, app_dsn: str, app: Connection, projection: Projection
) -> None:
    head = await write_log(owner, HISTORY)
    await fold_to(app, projection, head)
    first = await Process.start(app_dsn, projection, 100)
    try:
        await first.reach(100)
        for refused in (Rebuild(app_dsn, projection).run(), Rebuild(app_dsn, projection).roll_back()):
            with pytest.raises(Refused, match=r"under way in another process: wait for it|no generation to go back to"):
                await refused
        others = await asyncio.gather(*(Rebuild(app_dsn, projection).run() for _ in range(3)), return_exceptions=True)
        assert {type(other) for other in others} == {Refused}
        assert await first.end() == (0, "done")
    finally:
        await first.kill()
    assert await states(owner, projection) == {1: "retired", 2: "live"}
    assert await rows_of(app, projection) == plain(projection, HISTORY)


async def test_of_rebuilds_begun_at_the_same_moment_one_goes_on(
    owner: Connection, app_dsn: str, app: Connection, projection: Projection
) -> None:
    """Where none was begun, where one is to be gone on with, and where one of other statements has to be dropped first."""
    head = await write_log(owner, HISTORY)
    await fold_to(app, projection, head)
    connections = [await connect(app_dsn, f"rebuild {n}") for n in range(4)]
    others = msgspec.structs.replace(projection, merge=projection.merge + "\n")
    try:
        for which in (projection, projection, others):
            await expire(owner)
            found = await asyncio.gather(
                *(take_building(c, which, uuid4()) for c in connections), return_exceptions=True
            )
            assert sorted(type(f).__name__ for f in found) == ["Refused"] * 3 + ["tuple"]
        assert await states(owner, projection) == {1: "live", 3: "building"}
    finally:
        for connection in connections:
            await connection.close()


async def test_a_rebuild_that_was_stopped_and_returns_late_changes_nothing(
    owner: Connection, app_dsn: str, app: Connection, projection: Projection
) -> None:
    head = await write_log(owner, HISTORY)
    await fold_to(app, projection, head)
    late = await Process.start(app_dsn, projection, 100)
    try:
        await late.reach(200)
        os.kill(late.process.pid, signal.SIGSTOP)
        await expire(owner)
        result = await Rebuild(app_dsn, projection).run()
        assert (result.resumed, result.flipped) == (True, True)
        os.kill(late.process.pid, signal.SIGCONT)
        code, said = await late.end()
        assert code != 0
        assert "another process has taken over" in said
    finally:
        await late.kill()
    assert await states(owner, projection) == {1: "retired", 2: "live"}
    assert await rows_of(app, projection) == plain(projection, HISTORY)


async def test_a_rebuild_that_other_statements_began_is_begun_anew_under_another_number(
    owner: Connection, app_dsn: str, app: Connection, projection: Projection
) -> None:
    head = await write_log(owner, HISTORY)
    await fold_to(app, projection, head)
    killed = await Process.start(app_dsn, projection, 100)
    await killed.reach(300)
    await killed.kill()
    await expire(owner)
    newer = msgspec.structs.replace(projection, merge=f"-- another release's\n{projection.merge}")
    assert newer.fold != projection.fold
    result = await Rebuild(app_dsn, newer).run()
    assert (result.resumed, result.events, result.generation) == (False, head, 3)
    assert await owner.fetchval("SELECT to_regclass($1)", projection.table_of(2)) is None
    assert await rows_of(app, projection) == plain(projection, HISTORY)


async def test_a_rollback_reads_the_generation_before_caught_up_and_another_goes_forward_again(
    owner: Connection, app_dsn: str, app: Connection, projection: Projection
) -> None:
    with pytest.raises(Refused, match="has no generation to go back to"):
        await Rebuild(app_dsn, projection).roll_back()
    head = await write_log(owner, HISTORY[:200])
    async with running(app_dsn, projection) as runner:
        await runner.wait_for(projection.name, head, 20)
        assert (await Rebuild(app_dsn, projection).run()).flipped
        for more, expected in ((300, (1, 2)), (400, (2, 1)), (500, (1, 2))):
            head = await write_log(owner, HISTORY[head:more])
            await runner.wait_for(projection.name, head, 20)
            assert await Rebuild(app_dsn, projection).roll_back() == expected
            assert await states(owner, projection) == {expected[0]: "live", expected[1]: "retired"}
            assert await rows_of(app, projection) == plain(projection, HISTORY[:head])
        head = await write_log(owner, HISTORY[head:])
        await runner.wait_for(projection.name, head, 20)
    assert await rows_of(app, projection) == plain(projection, HISTORY)


async def test_a_rollback_that_was_killed_is_gone_on_with_and_no_rebuild_takes_it_for_its_own(
    owner: Connection, app_dsn: str, app: Connection, projection: Projection
) -> None:
    head = await write_log(owner, HISTORY[:100])
    await fold_to(app, projection, head)
    await Rebuild(app_dsn, projection).run()
    head = await write_log(owner, HISTORY[100:])
    await fold_to(app, projection, head)

    killed = await Process.start(app_dsn, projection, 100, "rollback")
    await killed.reach(300)
    await killed.kill()
    await expire(owner)
    assert await states(owner, projection) == {1: "building", 2: "live"}
    assert await rows_of(app, projection) == plain(projection, HISTORY)
    assert await Rebuild(app_dsn, projection).roll_back() == (1, 2)
    assert await rows_of(app, projection) == plain(projection, HISTORY)

    head = await write_log(owner, HISTORY[:300])
    await fold_to(app, projection, head)
    killed = await Process.start(app_dsn, projection, 100, "rollback")
    await killed.reach(700)
    await killed.kill()
    await expire(owner)
    result = await Rebuild(app_dsn, projection).run()
    assert (result.resumed, result.generation, result.events, result.flipped) == (False, 3, head, True)


async def test_a_rollback_leaves_a_rebuild_that_was_not_finished_behind(
    owner: Connection, app_dsn: str, app: Connection, projection: Projection
) -> None:
    head = await write_log(owner, HISTORY)
    await fold_to(app, projection, head)
    await Rebuild(app_dsn, projection).run()
    await owner.execute(f"DELETE FROM {projection.table_of(2)}")
    assert not (await Rebuild(app_dsn, projection).run()).flipped
    assert await Rebuild(app_dsn, projection).roll_back() == (1, 2)
    assert await states(owner, projection) == {1: "live", 2: "retired"}
    assert await rows_of(app, projection) == plain(projection, HISTORY)


async def test_a_generation_that_another_release_folded_is_not_gone_back_to(
    owner: Connection, app_dsn: str, app: Connection, projection: Projection
) -> None:
    head = await write_log(owner, HISTORY)
    await fold_to(app, projection, head)
    await Rebuild(app_dsn, projection).run()
    newer = msgspec.structs.replace(projection, merge=f"-- another release's\n{projection.merge}")
    with pytest.raises(Refused, match=r"generation 1 of .* was folded by another release's statements"):
        await Rebuild(app_dsn, newer).roll_back()
    assert await states(owner, projection) == {1: "retired", 2: "live"}


async def test_generations_retired_a_week_ago_are_dropped_and_no_other(
    owner: Connection, app_dsn: str, app: Connection, projection: Projection
) -> None:
    head = await write_log(owner, HISTORY)
    await fold_to(app, projection, head)
    week = timedelta(days=7)
    await Rebuild(app_dsn, projection).run()
    assert await generations.drop_retired(app, projection, week) == 0
    await owner.execute("UPDATE projections.cursors SET state_since = state_since - interval '8 days'")
    building = await take_retired(app, projection, uuid4())
    assert await generations.drop_retired(app, projection, week) == 0, "it is being caught up"
    assert not await generations.drop(app, projection, building.generation, "retired")
    await expire(owner)
    assert await Rebuild(app_dsn, projection).roll_back() == (1, 2)
    await owner.execute("UPDATE projections.cursors SET state_since = state_since - interval '8 days'")
    assert await generations.drop_retired(app, projection, week) == 1
    assert await states(owner, projection) == {1: "live"}
    assert await owner.fetchval("SELECT to_regclass($1)", projection.table_of(2)) is None
    assert await rows_of(app, projection) == plain(projection, HISTORY)


async def test_a_halted_view_is_not_rebuilt_until_it_goes_on(
    owner: Connection, app_dsn: str, app: Connection, projection: Projection
) -> None:
    await make_poison(owner)
    head = await write_log(owner, HISTORY)
    await poison(owner, BAD)
    folding = tasting(projection)
    await fold_to(app, folding, BAD - 1)
    fence = await own(app, projection)
    await cursor.halt(app, projection, 1, fence, BAD, "why")
    for refused in (Rebuild(app_dsn, folding).run(), Rebuild(app_dsn, folding).roll_back()):
        with pytest.raises(
            Refused, match=rf"is halted before the event at position {BAD} \(why\).*emberlog projections park"
        ):
            await refused
    assert await states(owner, projection) == {1: "live"}

    await parking.park(app, projection)
    await fold_to(app, folding, head)
    same = await Rebuild(app_dsn, folding).run()
    assert (same.flipped, same.digest) == (True, same.before), "the new generation goes on without it, too"
    assert [p.position for p in await parking.list_parked(app, projection.name)] == [BAD]
    await parking.discard(app, projection, BAD)
    again = await Rebuild(app_dsn, folding).run()
    assert (again.flipped, again.digest) == (True, again.before)
    [parked] = await parking.list_parked(app, projection.name)
    assert (parked.position, parked.generation, parked.discarded_at is not None) == (BAD, 3, True)
    await heal(owner)
    mended = await Rebuild(app_dsn, folding).run()
    assert (mended.flipped, mended.differing > 0) == (False, True), "now the log says more than the view"
    await Rebuild(app_dsn, folding).run(accept_differences=True)
    assert await rows_of(app, projection) == plain(projection, HISTORY)
    assert await parking.list_parked(app, projection.name) == []


async def test_an_event_that_only_the_rebuild_cannot_fold_leaves_a_view_that_halts_as_it_was(
    owner: Connection, app_dsn: str, app: Connection
) -> None:
    await make_poison(owner)
    head = await write_log(owner, HISTORY)
    await fold_to(app, USAGE, head)
    await poison(owner, 321)
    with pytest.raises(Refused, match=r"the event at position 321 cannot be folded .*The live view is unchanged"):
        await Rebuild(app_dsn, tasting(USAGE)).run()
    assert await states(owner, USAGE) == {1: "live", 2: "building"}
    await heal(owner)
    result = await Rebuild(app_dsn, tasting(USAGE)).run()
    assert (result.resumed, result.events, result.flipped) == (True, head - 320, True)


async def test_a_table_that_is_missing_is_no_events_fault(owner: Connection, app_dsn: str, app: Connection) -> None:
    """A view that parks would otherwise go on without every event there is."""
    head = await write_log(owner, HISTORY[:50])
    broken = msgspec.structs.replace(REQUESTS, delta=REQUESTS.delta.replace("{events}", "emberlog.no_such_table"))
    await fold_to(app, REQUESTS, head)
    with pytest.raises(Refused, match="42P01"):
        await Rebuild(app_dsn, broken).run()
    await owner.execute("DELETE FROM projections.cursors WHERE state = 'building'")
    await write_log(owner, HISTORY[50:60])
    await cursor.evict_owners(owner)
    async with running(app_dsn, broken) as runner:
        await until(lambda: (seen := runner.standing("requests")) and seen.error, what="the view halts")
    seen = await cursor.look(app, REQUESTS)
    assert (seen.position, seen.failed_position, seen.parked) == (50, 51, 0)


async def test_the_view_as_of_a_position_has_the_digest_that_the_live_view_had_there(
    owner: Connection, app: Connection, projection: Projection
) -> None:
    history = some_history(300, seconds=20_000)  # months: rows are pruned on the way
    head = await write_log(owner, history)
    stood: dict[int, str] = {}
    for end in range(10, head + 1, 10):
        await fold_to(app, projection, end)
        fence = await own(app, projection)
        await cursor.prune(app, projection, fence, await cursor.look(app, projection))
        stood[end] = await live_digest(app, projection)
    assert len(set(stood.values())) == len(stood)
    for end, expected in list(stood.items())[::5]:
        table, time = await fresh.fold_fresh(app, projection, end, None)
        assert time == history[end - 1].at
        assert await digest(app, projection, table, time) == expected


async def test_a_time_is_the_position_of_the_last_event_up_to_it(owner: Connection, app_dsn: str) -> None:
    at = datetime(2026, 1, 1, tzinfo=UTC)
    times = [at, at, at + timedelta(microseconds=1), at + timedelta(seconds=5)]
    await write_log(owner, [Recorded(t, "t", HISTORY[0].data) for t in times])
    log = await PostgresEventLog.connect(app_dsn, pool_size=1, readers=1)
    try:
        micro = timedelta(microseconds=1)
        expected = {
            at - micro: 0, at: 2, at + micro: 3, at + 2 * micro: 3, times[3] - micro: 3, times[3]: 4, times[3] + timedelta(days=9): 4,
        }  # fmt: skip
        assert {t: await fresh.position_at(log, t) for t in expected} == expected
    finally:
        await log.close()


async def test_everything_holds_across_events_that_were_archived(
    services: EmbeddedServices, postgres_dsn: str, tmp_path: Path, projection: Projection
) -> None:
    """Rebuild, verify, as of, a runner from zero and parked events: on partitions of ten events, nearly all moved to files."""
    await migrate(postgres_dsn, partition_width=WIDTH)
    await services.grant_app_role()
    app_dsn, folder = with_user(postgres_dsn, "emberlog_gateway"), tmp_path / "archive"
    log = await PostgresEventLog.connect(app_dsn, archive_dir=folder)
    app = await connect(app_dsn, "archive tests", bulk=True)
    owner = await asyncpg.connect(postgres_dsn)
    try:
        instance = await log.register_instance("tests", 600)
        left = {row[:3] for row in plain(REQUESTS, HISTORY) if row[3] == "open"}  # their events cannot be archived
        closed = [e for e in HISTORY if _attempt(e) not in left]
        for n, event in enumerate(closed[:205]):
            key = n.to_bytes(16, "big")
            await log.append(
                instance, [NewEvent(key, key, event.tenant, "s", event.data.TYPE, encode_data(event.data))]
            )
        await age(postgres_dsn, 200)
        await start_over(owner)
        before: dict[int, str] = {}
        for end in (50, 123, 200, 205):
            table, time = await fresh.fold_fresh(app, projection, end, None)
            before[end] = await digest(app, projection, table, time)
        await fold_to(app, REQUESTS, 205)  # what is open must be known before anything is archived
        segments = await archive_all(postgres_dsn, folder)
        assert len(segments) == 20
        await start_over(owner)
        fence = await own(app, projection)
        await cursor.fold(app, projection, 1, fence, 0, 6, LEASE, log.read)
        await cursor.park(app, projection, 1, fence, 7, "by hand", LEASE)
        assert await owner.fetchval("SELECT min(position) FROM emberlog.events") == 201

        for end, expected in before.items():
            table, time = await fresh.fold_fresh(app, projection, end, log.read)
            assert await digest(app, projection, table, time) == expected
        async with running(app_dsn, projection, read=log.read, batch=33) as runner:
            await owner.execute("UPDATE projections.cursors SET lease_until = '-infinity'")
            await runner.wait_for(projection.name, 205, 30)
        assert await parking.retry(app, projection, 7, log.read) == 1
        assert await live_digest(app, projection) == before[205]
        verified = await fresh.verify(app, projection, log.read)
        assert (verified.digest, verified.expected, verified.position) == (before[205], before[205], await log.head())
        result = await Rebuild(app_dsn, projection, log.read).run()
        assert (result.flipped, result.digest, result.before) == (True, before[205], before[205])
        with pytest.raises(Refused, match="the log cannot be read at position 1"):
            await Rebuild(app_dsn, projection).run()  # negative control: nobody brings the archived ones
    finally:
        await owner.close()
        await app.close()
        await log.close()


def _attempt(event: Recorded) -> tuple[Any, ...]:
    fields = msgspec.to_builtins(event.data)
    return event.tenant, fields.get("request_id"), fields.get("attempt")


def test_what_is_planted_and_read_here_is_so_for_every_view() -> None:
    assert set(COUNTED) == {p.name for p in DEEP}
    assert all(set(of) == {p.name for p in DEEP} for of in PLANTED.values())
