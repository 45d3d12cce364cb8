"""`GET /api/v1/tenant-models/usage`: the period is what its name says, and its parts add up."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from gateway.http.api.period_usage import _span
from tests.support.projecting import Connection, Recorded, failed, generated, write_log
from tests.support.reading import Site, reading_site
from tests.unit.wire.fake_service import ADMIN_KEY, BILLING_KEY, KEY, OPERATOR_KEY

USAGE = "/api/v1/tenant-models/usage"


@pytest.fixture
async def site(migrated_dsn: str, owner: Connection) -> AsyncIterator[Site]:
    """Of acme, a request now, 3 hours, 3 days and 40 days ago; a day in 2020 with several."""
    now, then = datetime.now(UTC), datetime(2020, 2, 1, 10, 30, 15, tzinfo=UTC)
    history = [
        Recorded(then, "acme", generated("a", agent="x", model="tiny", tokens=7, nano_usd=1)),
        Recorded(then, "acme", generated("b", agent="y", model="tiny", tokens=7, nano_usd=5)),
        Recorded(then, "acme", generated("c", agent="y", model="other", tokens=7, nano_usd=None)),
        Recorded(then + timedelta(minutes=1), "acme", failed("d", agent="y", model="other")),
        Recorded(then, "other", generated("e", model="tiny", tokens=1000, nano_usd=1000)),
        *(
            Recorded(
                now - timedelta(hours=hours), "acme", generated(f"n{n}", model="tiny", tokens=10**n, nano_usd=10**n)
            )
            for n, hours in enumerate((40 * 24, 3 * 24, 3, 0), 1)
        ),
    ]
    async with reading_site(migrated_dsn) as site:
        head = await write_log(owner, history)
        await site.runner.start()
        await site.runner.wait_for("usage", head, 20)
        yield site


async def usage(site: Site, key: str = BILLING_KEY, **query: Any) -> dict[str, Any]:
    answer = await site.get(USAGE, key, **query)
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()
    return found


async def test_a_period_ends_now_and_is_as_long_as_its_name_says(site: Site) -> None:
    found = {period: await usage(site, period=period) for period in ("hour", "day", "week", "month")}
    assert [found[p]["total_tokens"] for p in ("hour", "day", "week")] == [10_000, 11_000, 11_100]
    assert found["month"]["total_tokens"] in (10_000, 11_000, 11_100)
    assert (found["day"]["total_requests"], found["day"]["total_nano_usd"], found["day"]["period"]) == (
        2,
        11_000,
        "day",
    )
    assert (await usage(site))["total_tokens"] == 11_000, "a day unless it is said"


def test_periods_are_half_open_and_end_with_the_bucket_that_is_running() -> None:
    now = datetime(2026, 3, 1, 0, 30, 1, tzinfo=UTC)
    end = datetime(2026, 3, 1, 1, tzinfo=UTC)
    assert _span("hour", now) == (
        "minute",
        now.replace(hour=23, month=2, day=28, minute=31, second=0),
        now.replace(minute=31, second=0),
    )
    assert _span("day", now) == ("hour", end - timedelta(hours=24), end)
    assert _span("week", now) == ("hour", end - timedelta(days=7), end)
    assert _span("month", now) == ("day", datetime(2026, 3, 1, tzinfo=UTC), datetime(2026, 3, 2, tzinfo=UTC))
    midnight = datetime(2026, 3, 1, tzinfo=UTC)
    assert _span("day", midnight) == ("hour", midnight - timedelta(hours=24), midnight)


async def test_a_span_of_its_own_is_told_by_model_and_by_agent_the_dearest_first(site: Site) -> None:
    found = await usage(site, from_="2020-02-01T10:30:20", to="2020-02-01T10:30:40")
    assert (found["period"], found["start_time"], found["end_time"]) == (
        "custom", "2020-02-01T10:30:00Z", "2020-02-01T10:31:00Z",
    )  # fmt: skip
    assert (found["total_tokens"], found["total_requests"], found["total_nano_usd"], found["unpriced"]) == (21, 3, 6, 1)
    assert {m: s["requests"] for m, s in found["by_model"].items()} == {"tiny": 2, "other": 1}
    assert [(a["agent"], a["nano_usd"]) for a in found["by_agent"]] == [("y", 5), ("x", 1)]
    wider = await usage(site, from_="2020-02-01", to="2020-02-02", model_id="small")
    assert (wider["total_requests"], list(wider["by_model"])) == (2, ["tiny"]), "an alias names the model"
    assert (await usage(site, OPERATOR_KEY, tenant="other", from_="2020-01-01", to="2020-03-01"))[
        "total_tokens"
    ] == 1000


async def test_where_nothing_was_used_the_sums_are_zero(site: Site) -> None:
    found = await usage(site, from_="2021-01-01", to="2021-01-02")
    assert (found["total_tokens"], found["by_model"], found["by_agent"]) == (0, {}, [])


NONSENSE: list[tuple[dict[str, Any], int, str]] = [
    ({"period": "year"}, 400, "period"),
    ({"to": "2026-01-01"}, 400, "from"),
    ({"from_": "2026-01-02", "to": "2026-01-01"}, 400, "to"),
    ({"from_": "1980-01-02", "to": "2026-01-01"}, 400, "to"),
    ({"model_id": "nothing"}, 404, "model_id"),
    ({"tenant": "other"}, 403, "tenant"),
]


async def test_a_question_that_makes_no_sense_is_refused(site: Site) -> None:
    for query, status, field in NONSENSE:
        answer = await site.get(USAGE, ADMIN_KEY, **query)
        assert (answer.status_code, answer.json()["error"]["details"]["field"]) == (status, field), query


async def test_keys_for_agents_alone_do_not_see_the_whole_tenant(site: Site) -> None:
    assert (await site.get(USAGE, KEY)).status_code == 403
    assert (await site.get("/api/v1/embedding-models/usage", BILLING_KEY)).status_code == 200
    assert (await site.get("/tenant-models/usage", BILLING_KEY)).status_code == 200
