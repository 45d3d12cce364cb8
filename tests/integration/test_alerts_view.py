"""The alerts view equals the plain fold of the log, and reads as the domain's alerts."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from uuid import UUID

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from domain.events import AlertAcknowledged, AlertResolved, AlertSilenced, EventData
from projections import cursor, parking
from projections.alerts import ALERTS
from projections.alerts.query import read_alerts
from projections.connect import connect
from tests.support.alerting import ALERT_DATA, plain_alerts, raised
from tests.support.projecting import Connection, Recorded, write_log
from tests.support.views import empty, fold_to, rows_of

START = datetime(2026, 3, 28, tzinfo=UTC)
OWNER = UUID(int=7)
LEASE = timedelta(seconds=60)


@pytest.fixture
async def app(app_dsn: str) -> AsyncIterator[Connection]:
    connection = await connect(app_dsn, "alerts view")
    yield connection
    await connection.close()


@settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    items=st.lists(st.tuples(st.sampled_from(["t", "T"]), ALERT_DATA), min_size=1, max_size=20),
    batch=st.integers(1, 5),
    late=st.integers(0, 19),
)
async def test_however_the_log_is_cut_and_whatever_comes_late_the_view_is_the_plain_fold(
    owner: Connection, app: Connection, items: list[tuple[str, EventData]], batch: int, late: int
) -> None:
    history = [Recorded(START + timedelta(hours=n), tenant, data) for n, (tenant, data) in enumerate(items)]
    await empty(owner, [ALERTS])
    await write_log(owner, history)
    position = 1 + late % len(history)
    seen = await cursor.look(app, ALERTS)
    fence = await cursor.acquire(app, ALERTS, seen.generation, OWNER, LEASE)
    assert fence is not None
    at = 0
    for end in sorted({*range(batch, len(history), batch), position - 1, position, len(history)}):
        if end == position:
            await cursor.park(app, ALERTS, 1, fence, position, "late", LEASE)
        elif end > at:
            await cursor.fold(app, ALERTS, 1, fence, at, end, LEASE)
        at = max(at, end)
    assert await rows_of(app, ALERTS) == plain_alerts(history, {position})
    await parking.retry(app, ALERTS, position)
    assert await rows_of(app, ALERTS) == plain_alerts(history)


async def test_the_view_reads_as_alerts_with_their_states(owner: Connection, app: Connection) -> None:
    events = [
        raised("a", used=95, limit=100),
        raised("b"),
        AlertAcknowledged(alert="b", actor="key:x"),
        raised("c"),
        AlertSilenced(alert="c", until=4_000_000_000, actor="key:y"),
        raised("d"),
        AlertResolved(alert="d", reason="reset", at=1),
        AlertAcknowledged(alert="unknown"),
    ]
    head = await write_log(owner, [Recorded(START, "t", data) for data in events])
    await fold_to(app, ALERTS, head)
    found = await read_alerts(app)
    assert [(a.alert, a.state(2_000_000_000)) for a in found] == [
        ("d", "resolved"), ("c", "silenced"), ("b", "acknowledged"), ("a", "raised"),
    ]  # fmt: skip
    assert found[1].state(4_000_000_000) == "raised"
    assert (found[3].used, found[3].limit, found[3].labels, found[3].raised_at) == (
        95, 100, {"unit": "tokens"}, START.timestamp(),
    )  # fmt: skip
    assert (found[2].acknowledged_by, found[1].silenced_by, found[0].reason) == ("key:x", "key:y", "reset")
    assert [a.alert for a in await read_alerts(app, still_open=True, limit=2)] == ["c", "b"]
    assert [a.alert for a in await read_alerts(app, still_open=False)] == ["d"]
    assert await read_alerts(app, tenants=["other"]) == []
    assert [a.alert for a in await read_alerts(app, alerts=["a", "z"], kinds=["quota_high"], tenants=["t"])] == ["a"]


async def test_an_alert_raised_again_is_open_and_seen_by_nobody(owner: Connection, app: Connection) -> None:
    events = [
        raised("a"),
        AlertAcknowledged(alert="a"),
        AlertResolved(alert="a", reason="raised", at=1),
        raised("a", 2),
    ]
    head = await write_log(owner, [Recorded(START, "t", data) for data in events])
    await fold_to(app, ALERTS, head, 1)
    [alert] = await read_alerts(app)
    assert (alert.state(0), alert.episode) == ("raised", 2)
