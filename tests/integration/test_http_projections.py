"""`GET /api/v1/projections`: an operator sees where each view stands, and stalled told from lagging and halted."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from projections.runner import ALL
from tests.support.projecting import Connection, Recorded, generated, write_log
from tests.support.reading import Site, reading_site
from tests.unit.wire.fake_service import ADMIN_KEY, INSTALLATION_KEY, OPERATOR_KEY

PROJECTIONS = "/api/v1/projections"


@pytest.fixture
async def site(migrated_dsn: str) -> AsyncIterator[Site]:
    async with reading_site(migrated_dsn) as running:
        yield running


async def usage_view(site: Site) -> dict[str, Any]:
    answer = await site.get(PROJECTIONS, OPERATOR_KEY)
    assert answer.status_code == 200, answer.text
    views = {view["id"]: view for view in answer.json()["projections"]}
    assert set(views) == {view.name for view in ALL}
    return dict(views["usage"])


def now(seconds_ago: float = 0) -> datetime:
    return datetime.now(UTC) - timedelta(seconds=seconds_ago)


async def test_only_an_operators_key_may_ask(site: Site) -> None:
    for key, status in (("em_nobody", 401), (ADMIN_KEY, 403), (INSTALLATION_KEY, 403), (OPERATOR_KEY, 200)):
        assert (await site.get(PROJECTIONS, key)).status_code == status
    assert (await site.http.get(PROJECTIONS)).status_code == 401
    assert (await site.get(PROJECTIONS, OPERATOR_KEY, name="usage")).status_code == 400


async def test_a_view_that_is_up_with_the_log_is_live_and_says_who_folds_it(site: Site, owner: Connection) -> None:
    head = await write_log(owner, [Recorded(now(), "acme", generated("r1"))])
    await site.runner.start()
    await site.runner.wait_for("usage", head, 30)
    view = await usage_view(site)
    assert (view["state"], view["position"], view["head"], view["behind"], view["parked"]) == ("live", 1, 1, 0, 0)
    assert view["owner"] is not None
    assert view["error"] is None


async def test_a_view_that_nobody_moves_is_told_from_one_that_is_behind_but_moving(
    site: Site, owner: Connection
) -> None:
    await usage_view(site)  # makes the cursors; no runner is started
    await write_log(owner, [Recorded(now(seconds_ago=3600), "acme", generated(f"r{n}")) for n in range(3)])
    moving = await usage_view(site)
    assert (moving["state"], moving["behind"], moving["owner"]) == ("lagging", 3, None)
    assert moving["lag_seconds"] > 3000
    await owner.execute("UPDATE projections.cursors SET updated_at = clock_timestamp() - interval '1 minute'")
    assert (await usage_view(site))["state"] == "stalled"


async def test_a_halted_view_names_the_position_and_the_error_without_the_events_data(
    site: Site, owner: Connection
) -> None:
    await write_log(owner, [Recorded(now(), "acme", generated("r1"))])
    await write_log(owner, [Recorded(now(), "acme", generated("SECRET"))], schema_version=9)
    await site.runner.start()
    view = await usage_view(site)
    while view["state"] != "halted":
        view = await usage_view(site)
    assert (view["position"], view["failed_position"]) == (1, 2)
    assert "schema version" in view["error"]
    assert "SECRET" not in view["error"]


async def test_the_answer_is_as_documented(site: Site) -> None:
    document = (await site.http.get("/openapi.json")).json()
    assert set(await usage_view(site)) == set(document["components"]["schemas"]["ProjectionDocument"]["properties"])
