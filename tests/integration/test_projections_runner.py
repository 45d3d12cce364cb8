"""The runner: one owner over all processes, view and cursor together or not at all, a halt where an event cannot be folded."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import Any

import msgspec
import pytest

from projections import cursor
from projections.projection import Projection, ProjectionHalted
from projections.requests import REQUESTS
from projections.runner import ALL
from projections.usage import USAGE
from tests.support.projecting import (
    Connection,
    plain_requests,
    plain_usage,
    request_rows,
    some_history,
    usage_rows,
    write_log,
)
from tests.support.views import running
from tests.support.waiting import until

LEASE = timedelta(seconds=60)
HISTORY = some_history(600)
ROOT = Path(__file__).parents[2]


async def assert_equals_plain_folds(owner: Connection, history: list[Any]) -> None:
    assert await usage_rows(owner) == plain_usage(history)
    assert await request_rows(owner) == plain_requests(history)


def then(projection: Projection, function: str) -> Projection:
    """The projection, with a call of a test's SQL function between the view and the cursor."""
    merge = f"WITH merged AS ({projection.merge} RETURNING 1) SELECT {function}($1::bigint, $2::bigint) FROM (SELECT count(*) FROM merged) m"
    return msgspec.structs.replace(projection, merge=merge)


async def make_function(owner: Connection, name: str, body: str) -> None:
    await owner.execute(
        f"CREATE FUNCTION public.{name}(a bigint, b bigint) RETURNS void LANGUAGE plpgsql SECURITY DEFINER AS $$ BEGIN {body} END $$"
    )


async def position(owner: Connection, name: str) -> int:
    return await owner.fetchval("SELECT position FROM projections.cursors WHERE name = $1", name) or 0


@pytest.mark.parametrize("batch", [1, 7, 1000])
async def test_every_projection_follows_the_log(owner: Connection, app_dsn: str, batch: int) -> None:
    head = await write_log(owner, HISTORY)
    async with running(app_dsn, batch=batch) as runner:
        for view in ALL:
            seen = await runner.wait_for(view.name, head, 120)
            assert seen.position == head
        assert runner.lag() == {view.name: (0, 0.0) for view in ALL}
    await assert_equals_plain_folds(owner, HISTORY)


async def test_an_event_is_folded_when_a_wake_up_comes_long_before_the_next_poll(
    owner: Connection, app_dsn: str
) -> None:
    async with running(app_dsn, USAGE, poll_seconds=3600) as runner:
        await runner.wait_for("usage", 0, 10)
        head = await write_log(owner, HISTORY[:10])
        runner.wake()
        await until(lambda: runner.lag()["usage"][0] == 0 and position(owner, "usage"), what="the first look")
        await runner.wait_for("usage", head, 10)


async def test_a_runner_that_stops_lets_the_next_one_begin_at_once(owner: Connection, app_dsn: str) -> None:
    head = await write_log(owner, HISTORY)
    async with running(app_dsn, USAGE, lease_seconds=3600) as runner:
        await runner.wait_for("usage", head, 20)
    head = await write_log(owner, HISTORY)
    async with running(app_dsn, USAGE, lease_seconds=3600) as runner:
        await runner.wait_for("usage", head, 5)


async def test_a_projection_halts_before_the_event_it_cannot_fold_and_goes_on_when_it_can(
    owner: Connection, app_dsn: str
) -> None:
    await owner.execute("CREATE TABLE public.poison AS SELECT 123::bigint AS position")
    await make_function(
        owner, "taste", "IF EXISTS (SELECT FROM public.poison p WHERE p.position > a AND p.position <= b) THEN "
        "RAISE 'cannot fold: \"acme''s secret\"'; END IF;"
    )  # fmt: skip
    head = await write_log(owner, HISTORY)
    async with running(app_dsn, then(USAGE, "public.taste"), REQUESTS, batch=100) as runner:
        with pytest.raises(ProjectionHalted, match=r"usage.*position 122"):
            await runner.wait_for("usage", head, 20)
        await runner.wait_for("requests", head, 20)  # another projection is none the worse for it
        assert await usage_rows(owner) == plain_usage(HISTORY[:122])
        row = await owner.fetchrow("SELECT * FROM projections.cursors WHERE name = 'usage'")
        assert row is not None
        assert (row["position"], row["failed_position"]) == (122, 123)
        assert row["error"] == "RaiseError: P0001: cannot fold"
        events, before = runner.lag()["usage"]
        assert events == head - 122
        await until(lambda: runner.lag()["usage"][1] > before, what="the lag grows")
        await owner.execute("DELETE FROM public.poison")
        await until(lambda: reached(owner, head), what="the projection goes on by itself", timeout=20)
        assert await owner.fetchval("SELECT error FROM projections.cursors WHERE name = 'usage'") is None
    assert await usage_rows(owner) == plain_usage(HISTORY)


async def reached(owner: Connection, head: int) -> bool:
    return await position(owner, "usage") == head


async def test_a_lost_connection_is_made_again(owner: Connection, app_dsn: str) -> None:
    head = await write_log(owner, HISTORY[:100])
    async with running(app_dsn) as runner:
        await runner.wait_for("usage", head, 20)
        await owner.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
            "WHERE application_name LIKE 'emberlog projection%' AND datname = current_database()"
        )
        head = await write_log(owner, HISTORY[100:])
        await runner.wait_for("usage", head, 20)
        await runner.wait_for("requests", head, 20)
    await assert_equals_plain_folds(owner, HISTORY)


async def test_waiting_for_a_position_that_is_not_reached_times_out(owner: Connection, app_dsn: str) -> None:
    async with running(app_dsn, USAGE) as runner:
        with pytest.raises(TimeoutError):
            await runner.wait_for("usage", 1, 0.1)


async def test_while_the_database_is_away_the_lag_grows_and_stopping_is_quick(app_dsn: str) -> None:
    async with running(app_dsn.replace("/test_", "/no_such_database_"), USAGE) as runner:
        await until(lambda: runner.lag()["usage"][1] > 0.05, what="the lag grows")
        assert runner.standing("usage") is None


async def test_an_error_nobody_foresaw_does_not_end_the_worker(
    owner: Connection, app_dsn: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    head = await write_log(owner, HISTORY)
    fold = cursor.fold
    raised: list[bool] = []

    async def fails_once(*arguments: Any) -> None:
        if not raised:
            raised.append(True)
            raise AttributeError("a driver's defect")
        await fold(*arguments)

    monkeypatch.setattr(cursor, "fold", fails_once)
    async with running(app_dsn, USAGE) as runner:
        await runner.wait_for("usage", head, 20)
    assert raised
    assert await usage_rows(owner) == plain_usage(HISTORY)
