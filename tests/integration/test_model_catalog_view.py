"""The model_catalog view: what it says of models, however their events are cut into batches and whenever one is folded."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import timedelta

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from domain.events import EventData
from projections import cursor, parking
from projections.connect import connect
from projections.model_catalog import MODEL_CATALOG
from tests.support.cataloguing import MODEL_DATA, plain_model_catalog
from tests.support.histories import START
from tests.support.projecting import Connection, Recorded, write_log
from tests.support.views import LEASE, empty, fold_to, own, rows_of


@pytest.fixture
async def app(app_dsn: str) -> AsyncIterator[Connection]:
    connection = await connect(app_dsn, "model catalogue")
    yield connection
    await connection.close()


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    items=st.lists(MODEL_DATA, min_size=2, max_size=12),
    batch=st.sampled_from([1, 2, 5, 100]),
    late=st.integers(0, 11),
)
async def test_every_cut_and_every_late_event_gives_the_plain_fold(
    owner: Connection, app: Connection, items: list[EventData], batch: int, late: int
) -> None:
    history = [Recorded(START + timedelta(seconds=n), "_system", data) for n, data in enumerate(items)]
    await empty(owner, [MODEL_CATALOG])
    head = await write_log(owner, history)
    await fold_to(app, MODEL_CATALOG, head, batch)
    assert await rows_of(app, MODEL_CATALOG) == plain_model_catalog(history)
    await empty(owner, [MODEL_CATALOG])
    await write_log(owner, history)
    position = late % len(history) + 1
    fence = await own(app, MODEL_CATALOG)
    for at in range(head):
        if at + 1 == position:
            await cursor.park(app, MODEL_CATALOG, 1, fence, position, "late", LEASE)
        else:
            await cursor.fold(app, MODEL_CATALOG, 1, fence, at, at + 1, LEASE)
    assert await rows_of(app, MODEL_CATALOG) == plain_model_catalog(history, {position})
    await parking.retry(app, MODEL_CATALOG, position)
    assert await rows_of(app, MODEL_CATALOG) == plain_model_catalog(history)
