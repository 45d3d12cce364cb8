"""The views folded by SQL equal the plain folds of the same events, however the log is cut into batches."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import asyncpg
import pytest

from domain.events import EventData
from projections import cursor
from projections.requests import REQUESTS
from projections.usage import USAGE
from projections.usage.query import read_usage
from tests.support.projecting import (
    Connection,
    Recorded,
    failed,
    generated,
    plain_requests,
    plain_usage,
    reembedded,
    request_rows,
    requested,
    some_history,
    start_over,
    usage_rows,
    write_log,
)

OWNER = UUID(int=7)
LEASE = timedelta(seconds=60)
START = datetime(2026, 3, 28, 23, 59, 58, tzinfo=UTC)


@pytest.fixture
async def owner(migrated_dsn: str) -> AsyncIterator[Connection]:
    connection = await asyncpg.connect(migrated_dsn, server_settings={"timezone": "Asia/Kathmandu"})
    yield connection
    await connection.close()


async def fold_all(owner: Connection, upto: int, cuts: Sequence[int], after: int = 0) -> None:
    """Fold both views from `after` to `upto`, cut into batches at `cuts`."""
    ends = sorted({c for c in cuts if after < c < upto} | {upto})
    for projection in (USAGE, REQUESTS):
        await cursor.look(owner, projection)
        await owner.execute("UPDATE projections.cursors SET position = $2 WHERE name = $1", projection.name, after)
        fence = await cursor.acquire(owner, projection, 1, OWNER, LEASE)
        assert fence is not None
        done = after
        for end in ends:
            if end > done:
                await cursor.fold(owner, projection, 1, fence, done, end, LEASE)
                done = end
        seen = await cursor.look(owner, projection)
        await cursor.prune(owner, projection, fence, seen)


async def usage_of(owner: Connection, *events: EventData) -> dict[str, Any]:
    """The day's usage after these events, summed by nothing: one row is expected."""
    head = await write_log(owner, [Recorded(START, "acme", data) for data in events])
    await fold_all(owner, head, [])
    report = await read_usage(owner, grain="day")
    [row] = report.rows
    return row


async def test_an_answered_request_counts_its_inputs_tokens_and_bill(owner: Connection) -> None:
    row = await usage_of(owner, requested("1"), generated("1", cached_inputs=1))
    assert row["requests"] == 1
    assert (row["inputs"], row["cached_inputs"], row["tokens"], row["billed_tokens"]) == (2, 1, 7, 5)
    assert (row["nano_usd"], row["provider_nano_usd"], row["unpriced"]) == (100, 90, 0)
    assert (row["agent"], row["model"], row["provider"], row["tenant"]) == ("a", "m", "p", "acme")


async def test_an_unknown_price_is_counted_and_never_added_as_zero(owner: Connection) -> None:
    row = await usage_of(owner, generated("1", nano_usd=None, provider_nano_usd=None), generated("2"))
    assert (row["unpriced"], row["nano_usd"], row["provider_unpriced"], row["provider_nano_usd"]) == (1, 100, 1, 90)


async def test_a_failure_without_a_bill_is_priced_at_zero_and_not_unknown(owner: Connection) -> None:
    row = await usage_of(owner, failed("1"))
    assert (row["requests"], row["failed"], row["unpriced"], row["provider_unpriced"]) == (0, 1, 0, 0)
    assert (row["nano_usd"], row["tokens"], row["inputs"]) == (0, 0, 0)
    assert row["provider"] is None


async def test_cancelled_and_late_requests_count_as_failed_with_their_bills(owner: Connection) -> None:
    bill: dict[str, Any] = {"provider": "p", "billed_tokens": 4, "nano_usd": 8, "provider_nano_usd": 8}
    row = await usage_of(owner, failed("1", code="cancelled", **bill), failed("2", code="deadline_exceeded", **bill))
    assert (row["failed"], row["cancelled"], row["late"]) == (2, 1, 1)
    assert (row["billed_tokens"], row["nano_usd"], row["tokens"], row["inputs"]) == (8, 16, 14, 4)


async def test_a_replay_embedded_again_costs_the_provider_side_alone(owner: Connection) -> None:
    row = await usage_of(owner, reembedded("1"))
    assert (row["reembedded"], row["requests"], row["nano_usd"], row["provider_nano_usd"]) == (1, 0, 0, 40)
    assert (row["tokens"], row["billed_tokens"]) == (0, 0)


async def test_buckets_are_utc_whatever_the_session_and_cut_at_midnight(owner: Connection) -> None:
    times = [START, START + timedelta(seconds=1.999999), START + timedelta(seconds=2)]
    head = await write_log(owner, [Recorded(at, "t", generated(str(n))) for n, at in enumerate(times)])
    await fold_all(owner, head, [])
    report = await read_usage(owner, grain="day")
    assert [(r["bucket"], r["requests"]) for r in report.rows] == [
        ("2026-03-28T00:00:00Z", 2),
        ("2026-03-29T00:00:00Z", 1),
    ]
    assert (report.position, report.time) == (3, "2026-03-29T00:00:00Z")


async def test_the_views_of_a_long_history_equal_the_plain_folds(owner: Connection) -> None:
    history = some_history(3000)
    head = await write_log(owner, history)
    await fold_all(owner, head, [500, 501, 1777])
    assert await usage_rows(owner) == plain_usage(history)
    assert await request_rows(owner) == plain_requests(history)


async def test_pruning_goes_by_the_times_of_the_log_and_not_by_the_clock(owner: Connection) -> None:
    old = [Recorded(START, "t", requested("old")), Recorded(START, "t", generated("old"))]
    late = [Recorded(START + timedelta(days=30, seconds=1), "t", requested("new"))]
    head = await write_log(owner, old + late)
    await fold_all(owner, head, [2])
    assert [row[1] for row in await request_rows(owner)] == ["new"]


async def test_an_id_used_again_starts_its_row_anew_in_one_batch_as_in_two(owner: Connection) -> None:
    again = START + timedelta(days=2)
    history = [
        Recorded(START, "t", requested("x", instance="first")),
        Recorded(START, "t", generated("x")),
        Recorded(again, "t", requested("x", instance="second", model="other")),
    ]
    head = await write_log(owner, history)
    await fold_all(owner, head, [])
    one = await request_rows(owner)
    await start_over(owner)
    await fold_all(owner, head, [1, 2])
    assert await request_rows(owner) == one == plain_requests(history)
    assert (one[0][3], one[0][5], one[0][7]) == ("open", "other", "second")
