"""`GET /api/v1/costs` and its kin: the cost view within a key's reach, to the nano-dollar what the events say."""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from projections.cost import COST
from tests.support.projecting import Connection, Recorded, failed, generated, reembedded, write_log
from tests.support.reading import Site, reading_site
from tests.unit.wire.fake_service import ADMIN_KEY, BILLING_KEY, KEY, OPERATOR_KEY

COSTS = "/api/v1/costs"
NOW = datetime.now(UTC)
OURS = {"provider_nano_usd", "provider_unpriced"}


def _history() -> list[Recorded]:
    """Of acme: two agents and two models, over the end of a month, and today; of other: one request."""
    last = datetime(2026, 1, 31, 23, 30, tzinfo=UTC)
    return [
        Recorded(last, "acme", generated("1", agent="a", model="m", nano_usd=3, provider_nano_usd=2)),
        Recorded(last, "acme", generated("2", agent="b", model="m", nano_usd=None, provider_nano_usd=None)),
        Recorded(last + timedelta(hours=1), "acme", generated("3", agent="a", model="n", nano_usd=5, characters=40)),
        Recorded(last + timedelta(hours=1), "acme", failed("4", agent="a", model="n", billed_tokens=4, nano_usd=7)),
        Recorded(last + timedelta(hours=1), "acme", failed("5", agent="a", model="n")),
        Recorded(last + timedelta(hours=2), "acme", reembedded("1", agent="a", provider_nano_usd=11)),
        Recorded(last + timedelta(hours=2), "other", generated("6", agent="a", nano_usd=1000)),
        Recorded(NOW - timedelta(days=40), "acme", generated("7", agent="a", nano_usd=100_000)),
        Recorded(NOW, "acme", generated("8", agent="a", nano_usd=13)),
    ]


@pytest.fixture
async def site(migrated_dsn: str, owner: Connection) -> AsyncIterator[Site]:
    async with reading_site(migrated_dsn, COST) as site:
        head = await write_log(owner, _history())
        await site.runner.start()
        for view in ("usage", "cost"):
            await site.runner.wait_for(view, head, 20)
        yield site


async def costs(site: Site, key: str, **query: Any) -> dict[str, Any]:
    answer = await site.get(COSTS, key, **query)
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()
    return found


WINTER = {"from_": "2026-01-01", "to": "2026-03-01"}


async def test_costs_are_told_by_bucket_and_by_what_they_are_grouped_by(site: Site) -> None:
    months = await costs(site, BILLING_KEY, grain="month", group_by="tenant", **WINTER)
    assert [(r["bucket"][:10], r["tenant"], r["agent"], r["nano_usd"], r["unpriced"]) for r in months["costs"]] == [
        ("2026-01-01", "acme", None, 3, 1),
        ("2026-02-01", "acme", None, 12, 0),
    ]
    hours = await costs(site, BILLING_KEY, grain="hour", group_by="agent,model", from_="2026-01-31", to="2026-02-02")
    assert [(r["bucket"][8:13], r["agent"], r["model"], r["nano_usd"], r["requests"]) for r in hours["costs"]] == [
        ("31T23", "a", "m", 3, 1), ("31T23", "b", "m", 0, 1), ("01T00", "a", "n", 12, 1), ("01T01", "a", "m", 0, 0),
    ]  # fmt: skip
    assert (hours["total"]["nano_usd"], hours["total"]["characters"], hours["total"]["billed_tokens"]) == (15, 40, 19)
    only = await costs(site, BILLING_KEY, model="n", group_by="provider", **WINTER)
    assert [(r["provider"], r["nano_usd"]) for r in only["costs"]] == [(None, 7), ("p", 5)]


async def test_every_grain_adds_up_to_the_same(site: Site) -> None:
    totals = [(await costs(site, OPERATOR_KEY, grain=grain, **WINTER))["total"] for grain in ("day", "month")]
    hours: Counter[str] = Counter()
    for begin, end in (("2026-01-01", "2026-02-01"), ("2026-02-01", "2026-03-01")):
        hours.update((await costs(site, OPERATOR_KEY, grain="hour", from_=begin, to=end))["total"])
    assert totals[0] == totals[1] == dict(hours)
    assert totals[0]["nano_usd"] == 1015


async def test_what_providers_charge_is_for_operators_alone(site: Site) -> None:
    told = await costs(site, ADMIN_KEY, **WINTER)
    assert not OURS & (set(told["costs"][0]) | set(told["total"]))
    assert set(told["complete_to"]) == {"time"}
    whole = await costs(site, OPERATOR_KEY, tenant="acme", **WINTER)
    assert (whole["total"]["provider_nano_usd"], whole["total"]["provider_unpriced"]) == (2 + 90 + 11, 1)
    assert {n: v for n, v in whole["total"].items() if n not in OURS} == told["total"]


async def test_each_key_sees_the_costs_within_its_reach(site: Site) -> None:
    assert {r["tenant"] for r in (await costs(site, BILLING_KEY))["costs"]} == {"acme"}
    assert {r["tenant"] for r in (await costs(site, OPERATOR_KEY))["costs"]} == {"acme", "other"}
    assert (await site.get(COSTS, KEY)).status_code == 403
    assert (await site.get(COSTS, BILLING_KEY, tenant="other")).status_code == 403


NONSENSE: list[tuple[dict[str, Any], str]] = [
    ({"grain": "minute"}, "grain"),
    ({"grain": "hour"}, "from"),
    ({"grain": "hour", "from_": "2025-01-01", "to": "2026-01-01"}, "from"),
    ({"from_": "2026-02-01", "to": "2026-02-01"}, "to"),
    ({"group_by": "agent,colour"}, "group_by"),
    ({"from_": "soon"}, "from"),
]


async def test_a_question_that_makes_no_sense_is_refused(site: Site) -> None:
    for query, field in NONSENSE:
        answer = await site.get(COSTS, BILLING_KEY, **query)
        assert (answer.status_code, answer.json()["error"]["details"]["field"]) == (400, field), query


async def test_an_agents_costs_are_those_of_its_last_days(site: Site) -> None:
    async def of(agent: str, **query: Any) -> dict[str, Any]:
        answer = await site.get(f"/api/v1/agents/{agent}/costs", ADMIN_KEY, **query)
        assert answer.status_code == 200, answer.text
        found: dict[str, Any] = answer.json()
        return found

    month = await of("a")
    assert (month["total"]["nano_usd"], month["period_days"]) == (13, 30)
    assert [(m["model"], m["provider"], m["nano_usd"]) for m in month["by_model"]] == [("m", "p", 13)]
    assert [d["nano_usd"] for d in month["by_day"]] == [13]
    assert not OURS & set(month["by_model"][0])
    assert (await of("a", period_days=41))["total"]["nano_usd"] == 100_013
    assert (await of("nobody"))["total"]["requests"] == 0
    for days in ("0", "366", "x"):
        assert (await site.get("/api/v1/agents/a/costs", ADMIN_KEY, period_days=days)).status_code == 400
    other = (await site.get("/api/v1/agents/a/costs", OPERATOR_KEY, tenant="other")).json()
    assert other["total"]["nano_usd"] == 0, "it is the other tenant's agent of that name"
