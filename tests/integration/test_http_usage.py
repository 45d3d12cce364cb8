"""`GET /api/v1/usage`: whose usage a key sees, up to where it is complete, and how a read waits for what was just written."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

import asyncpg
import pytest

from domain.cursor import encode_cursor
from domain.tenancy import Principal
from gateway.reads import reads
from projections.projection import ProjectionHalted
from projections.usage.query import read_usage
from tests.support.projecting import Connection, Recorded, generated, write_log
from tests.support.reading import Site, reading_site
from tests.unit.wire.fake_service import ADMIN_KEY, BILLING_KEY, INSTALLATION_KEY, KEY, OPERATOR_KEY

USAGE = "/api/v1/usage"
DAY = datetime(2026, 3, 1, 12, 0, 30, tzinfo=UTC)


@pytest.fixture
async def site(migrated_dsn: str) -> AsyncIterator[Site]:
    async with reading_site(migrated_dsn) as running:
        yield running


@pytest.fixture
async def folded(site: Site, owner: Connection) -> Site:
    """Three days of usage of two tenants and two agents, folded."""
    history = [
        Recorded(DAY + timedelta(days=n // 4), tenant, generated(f"r{n}", agent=agent))
        for n, (tenant, agent) in enumerate([("acme", "k1"), ("acme", "crawler"), ("other", "k1"), ("other", "x")] * 3)
    ]
    head = await write_log(owner, history)
    await site.runner.start()
    await site.runner.wait_for("usage", head, 30)
    return site


async def rows(site: Site, key: str, headers: dict[str, str] | None = None, **query: Any) -> list[dict[str, Any]]:
    answer = await site.get(USAGE, key, headers, **query)
    assert answer.status_code == 200, answer.text
    found: list[dict[str, Any]] = answer.json()["usage"]
    return found


def whose(found: list[dict[str, Any]]) -> set[tuple[str, str]]:
    return {(row["tenant"], row["agent"]) for row in found}


# -- reach --------------------------------------------------------------------------------------------------------------


async def test_each_key_sees_the_usage_within_its_reach(folded: Site) -> None:
    whole = {("acme", "k1"), ("acme", "crawler")}
    assert whose(await rows(folded, BILLING_KEY)) == whose(await rows(folded, ADMIN_KEY)) == whole
    assert whose(await rows(folded, BILLING_KEY, tenant="acme")) == whole
    assert whose(await rows(folded, OPERATOR_KEY)) == whole | {("other", "k1"), ("other", "x")}
    assert whose(await rows(folded, OPERATOR_KEY, tenant="other")) == {("other", "k1"), ("other", "x")}


async def test_a_key_for_agents_sees_the_usage_of_one_agent_as_its_requests_name_it(folded: Site) -> None:
    assert whose(await rows(folded, KEY)) == {("acme", "k1")}
    assert whose(await rows(folded, KEY, {"x-emberlog-agent": "crawler"})) == {("acme", "crawler")}
    assert await rows(folded, KEY, {"x-emberlog-agent": "x"}) == []


async def test_a_key_of_one_agent_sees_the_usage_of_no_other(folded: Site) -> None:
    folded.gateway.service.keys["em_bound"] = Principal("k7", "acme", frozenset({"agent"}), agent="crawler")
    assert whose(await rows(folded, "em_bound")) == {("acme", "crawler")}
    answer = await folded.get(USAGE, "em_bound", {"x-emberlog-agent": "k1"})
    assert (answer.status_code, answer.json()["error"]["details"]) == (403, {"field": "x-emberlog-agent"})


async def test_a_token_sees_the_usage_of_its_subject(folded: Site) -> None:
    folded.gateway.service.keys["em_token"] = Principal(
        "https://id.example:crawler", "acme", frozenset({"agent"}), kind="jwt", subject="crawler"
    )
    assert whose(await rows(folded, "em_token")) == {("acme", "crawler")}


@pytest.mark.parametrize(
    ("key", "query", "status", "code"),
    [
        (None, {}, 401, "unauthorized"),
        (INSTALLATION_KEY, {}, 403, "forbidden"),
        (BILLING_KEY, {"tenant": "other"}, 403, "forbidden"),
        (KEY, {"tenant": "other"}, 403, "forbidden"),
        (OPERATOR_KEY, {"tenant": "nobody"}, 404, "not_found"),
    ],
)
async def test_who_may_not_read_is_told_so(
    site: Site, key: str | None, query: dict[str, str], status: int, code: str
) -> None:
    headers = {} if key is None else {"authorization": f"Bearer {key}"}
    answer = await site.http.get(USAGE, params=query, headers=headers)
    assert (answer.status_code, answer.json()["error"]["code"]) == (status, code)


async def test_a_tenant_is_shown_neither_a_position_nor_what_providers_charge(folded: Site) -> None:
    told, whole = [(await folded.get(USAGE, key, tenant="acme")).json() for key in (BILLING_KEY, OPERATOR_KEY)]
    assert set(told["complete_to"]) == {"time"}
    assert whole["complete_to"] == told["complete_to"] | {"position": 12}
    charged = {"provider_nano_usd", "provider_unpriced"}
    assert [set(a) ^ set(b) for a, b in zip(told["usage"], whole["usage"], strict=True)] == [charged] * 6


# -- rows ---------------------------------------------------------------------------------------------------------------


async def test_the_rows_are_the_views(folded: Site, owner: Connection) -> None:
    for grain in ("minute", "hour", "day"):
        span: dict[str, Any] = {"from_": "2026-03-01T12:00:00", "to": "2026-03-02"}
        found = await folded.get(USAGE, OPERATOR_KEY, grain=grain, **span)
        report = await read_usage(
            owner, grain=grain, since=DAY.replace(second=0), until=datetime(2026, 3, 2, tzinfo=UTC)
        )
        assert len(report.rows) == 4
        assert found.json() == {
            "usage": report.rows,
            "complete_to": {"time": report.time, "position": report.position},
        }


async def test_a_span_holds_the_buckets_from_its_beginning_to_before_its_end(folded: Site) -> None:
    async def days(**span: Any) -> list[str]:
        return sorted({row["bucket"][8:10] for row in await rows(folded, BILLING_KEY, **span)})

    assert await days() == ["01", "02", "03"]
    assert await days(from_="2026-03-02T23:59:59Z") == ["02", "03"]
    assert await days(to="2026-03-03") == ["01", "02"]
    assert await days(from_="2026-03-02", to="2026-03-03T00:00:00.000001") == ["02", "03"]
    assert await days(from_="2026-03-03T01:00:00+02:00") == ["02", "03"]


async def test_the_answer_is_as_documented(folded: Site) -> None:
    document = (await folded.http.get("/openapi.json")).json()
    schema = document["components"]["schemas"]["UsageRow"]
    [row, *_] = await rows(folded, OPERATOR_KEY)
    assert set(row) == set(schema["properties"])
    asked = {p["name"] for p in document["paths"][USAGE]["get"]["parameters"] if p["in"] == "query"}
    assert asked == {"grain", "from", "to", "tenant", "after_position"}


@pytest.mark.parametrize(
    ("query", "field"),
    [
        ({"grain": "week"}, "grain"),
        ({"grain": "hour"}, "from"),
        ({"from_": "yesterday"}, "from"),
        ({"from_": "0001-01-01"}, "from"),
        ({"to": "9999-12-31T23:59:59-12:00"}, "to"),
        ({"from_": "2026-03-02", "to": "2026-03-02"}, "to"),
        ({"grain": "minute", "from_": "2026-03-01", "to": "2026-03-03"}, "from"),
        ({"grain": "minute", "from_": "2026-03-01"}, "from"),
        ({"from_": "1970-01-01"}, "from"),
        ({"tenants": "acme"}, "tenants"),
        ({"after_position": "12"}, "after_position"),
    ],
)
async def test_a_bad_parameter_is_refused_by_name(site: Site, query: dict[str, Any], field: str) -> None:
    answer = await site.get(USAGE, OPERATOR_KEY, **query)
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, field)


# -- waiting for the view -----------------------------------------------------------------------------------------------


async def cursor_at(site: Site, position: int) -> str:
    return encode_cursor((await site.log.identity()).incarnation, position)


async def test_a_read_after_a_position_waits_until_the_view_holds_it(site: Site, owner: Connection) -> None:
    head = await write_log(owner, [Recorded(DAY, "acme", generated("r1"))])
    asking = asyncio.create_task(site.get(USAGE, BILLING_KEY, after_position=await cursor_at(site, head)))
    # Negative control: without the wait there is nothing yet.
    assert await rows(site, BILLING_KEY) == []
    assert not asking.done()
    await site.runner.start()
    assert [row["requests"] for row in (await asking).json()["usage"]] == [1]


async def test_a_view_that_does_not_get_there_in_time_is_told_from_one_that_is_halted(
    site: Site, owner: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reads, "WAIT_SECONDS", 0.05)
    head = await write_log(owner, [Recorded(DAY, "acme", generated("r1"))])
    cursor = await cursor_at(site, head)
    late = await site.get(USAGE, BILLING_KEY, after_position=cursor)
    assert (late.status_code, late.json()["error"]["code"]) == (503, "unavailable")
    assert "has not reached" in late.json()["error"]["message"]
    assert late.headers["x-should-retry"] == "true"

    async def halted(*_: Any) -> None:
        raise ProjectionHalted("the projection 'usage' stands at position 73915 and cannot go on: 22P02")

    monkeypatch.setattr(site.runner, "wait_for", halted)
    stopped = await site.get(USAGE, BILLING_KEY, after_position=cursor)
    assert (stopped.status_code, stopped.json()["error"]["code"]) == (503, "unavailable")
    assert "halted" in stopped.json()["error"]["message"]
    assert "73915" not in stopped.text


async def test_a_view_halted_at_an_event_it_cannot_fold_says_so_at_once(site: Site, owner: Connection) -> None:
    await write_log(owner, [Recorded(DAY, "acme", generated("r1"))])
    head = await write_log(owner, [Recorded(DAY, "acme", generated("r2"))], schema_version=9)
    await site.runner.start()
    async with asyncio.timeout(8):
        answer = await site.get(USAGE, BILLING_KEY, after_position=await cursor_at(site, head))
    assert (answer.status_code, answer.json()["error"]["code"]) == (503, "unavailable")
    assert "halted" in answer.json()["error"]["message"]
    assert [row["requests"] for row in await rows(site, BILLING_KEY, after_position=await cursor_at(site, 1))] == [1]
    assert [row["requests"] for row in await rows(site, BILLING_KEY)] == [1]


async def test_a_wrong_foreign_or_future_position_is_refused(site: Site) -> None:
    for cursor, says in (
        ("nonsense", "not a cursor"),
        (encode_cursor(uuid4(), 0), "another log"),
        (await cursor_at(site, 1), "ahead of the log"),
    ):
        error = (await site.get(USAGE, BILLING_KEY, after_position=cursor)).json()["error"]
        assert (error["code"], error["param"]) == ("invalid_cursor", "after_position")
        assert says in error["message"]


async def test_a_read_that_takes_too_long_says_how_to_ask_for_less(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    async def slow(*_: Any, **__: Any) -> None:
        raise asyncpg.QueryCanceledError("canceling statement due to statement timeout")

    monkeypatch.setattr(reads, "read_usage", slow)
    answer = await site.get(USAGE, BILLING_KEY)
    assert (answer.status_code, answer.json()["error"]["code"]) == (504, "deadline_exceeded")
    assert "shorter time" in answer.json()["error"]["message"]


async def test_an_answer_with_too_many_rows_is_refused_not_cut(folded: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reads, "MAX_ROWS", 6)
    assert len(await rows(folded, BILLING_KEY)) == 6
    refused = await folded.get(USAGE, OPERATOR_KEY)
    assert (refused.status_code, refused.json()["error"]["code"]) == (400, "invalid_request")
    assert "more than 6 rows" in refused.json()["error"]["message"]


async def test_no_more_rows_leave_the_database_than_an_answer_may_have(folded: Site, owner: Connection) -> None:
    assert len((await read_usage(owner)).rows) == 12
    assert len((await read_usage(owner, limit=7)).rows) == 7
    assert {row["agent"] for row in (await read_usage(owner, tenant="acme", agent="crawler")).rows} == {"crawler"}
