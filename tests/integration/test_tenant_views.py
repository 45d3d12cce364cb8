"""The views of tenants' models and agents: however their events are cut into batches and whenever one is folded."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import timedelta

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from domain.events import EventData, TenantModelConfigured
from projections import cursor, parking
from projections.agent_preferences import AGENT_PREFERENCES
from projections.connect import connect
from projections.tenant_models import TENANT_MODELS
from tests.support.histories import START
from tests.support.projecting import Connection, Recorded, write_log
from tests.support.tenanting import TENANT_DATA
from tests.support.views import LEASE, empty, fold_to, own, plain, rows_of

VIEWS = (TENANT_MODELS, AGENT_PREFERENCES)


@pytest.fixture
async def app(app_dsn: str) -> AsyncIterator[Connection]:
    connection = await connect(app_dsn, "tenant views")
    yield connection
    await connection.close()


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    items=st.lists(st.tuples(st.sampled_from(["t", "T"]), TENANT_DATA), min_size=2, max_size=12),
    batch=st.sampled_from([1, 2, 5, 100]),
    late=st.integers(0, 11),
)
async def test_every_cut_and_every_late_event_gives_the_plain_fold(
    owner: Connection, app: Connection, items: list[tuple[str, EventData]], batch: int, late: int
) -> None:
    history = [Recorded(START + timedelta(seconds=n), tenant, data) for n, (tenant, data) in enumerate(items)]
    position = late % len(history) + 1
    for view in VIEWS:
        await empty(owner, [view])
        head = await write_log(owner, history)
        await fold_to(app, view, head, batch)
        assert await rows_of(app, view) == plain(view, history)
        await empty(owner, [view])
        await write_log(owner, history)
        fence = await own(app, view)
        for at in range(head):
            if at + 1 == position:
                await cursor.park(app, view, 1, fence, position, "late", LEASE)
            else:
                await cursor.fold(app, view, 1, fence, at, at + 1, LEASE)
        assert await rows_of(app, view) == plain(view, history, {position})
        await parking.retry(app, view, position)
        assert await rows_of(app, view) == plain(view, history)


async def test_the_default_is_the_model_with_the_highest_default_position(owner: Connection, app: Connection) -> None:
    said = [("a", True), ("b", True), ("a", False), ("c", False)]
    history = [
        Recorded(START + timedelta(seconds=n), "t", TenantModelConfigured(model, default=default))
        for n, (model, default) in enumerate(said)
    ]
    await fold_to(app, TENANT_MODELS, await write_log(owner, history), 2)
    found = await app.fetchval(
        "SELECT model_id FROM projections.tenant_models ORDER BY default_position DESC NULLS LAST LIMIT 1"
    )
    assert found == "b"
