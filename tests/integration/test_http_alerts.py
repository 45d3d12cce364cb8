"""Alerts and webhooks by the management API: a real log and its views, keys of two tenants and of operators."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any, cast
from uuid import UUID, uuid4

import httpx2 as httpx
import pytest
from prometheus_client import CollectorRegistry

from adapters.postgres import deliveries
from adapters.postgres.deliveries import Planned
from adapters.postgres.event_log import PostgresEventLog
from domain.events import TenantCreated
from domain.tenancy import Principal
from gateway.alerts.desk import AlertDesk
from gateway.app import build_app
from gateway.reads.reads import Reads
from gateway.reads.turns import MAX_READS_OF_A_TENANT
from projections.alerts import ALERTS
from tests.support.watchtower import Watchtower, quota, watchtower
from tests.unit.wire.fake_service import FakeService

WEBHOOK = {"url": "https://hooks.example.com/x", "types": ["alert.*"]}


class _Cursors:
    async def cursor(self, position: int) -> str:
        return f"at-{position}"


class Office:
    """Asks by the keys `acme`, `other` (admins of these tenants) and `ops` (an operator)."""

    def __init__(self, tower: Watchtower) -> None:
        self.tower = tower
        service = FakeService()
        service.control = tower.home.control
        service.reads = cast("Reads", _Cursors())
        service.webhooks = tower.home.admin
        service.alerts = AlertDesk(tower.home.log.pool, tower.evaluator, tower.home.append, self._appear)
        service.keys = {
            "acme": Principal("a", "acme", frozenset({"admin"})),
            "other": Principal("o", "other", frozenset({"admin"})),
            "ops": Principal("p", None, frozenset({"operator"})),
        }
        transport = httpx.ASGITransport(app=build_app(service, CollectorRegistry()), raise_app_exceptions=False)
        self.http = httpx.AsyncClient(transport=transport, base_url="http://test")

    async def _appear(self, position: int) -> None:
        await self.tower.runner.wait_for(ALERTS.name, position, 10)

    async def ask(self, method: str, path: str, key: str = "acme", json: Any = None, **query: Any) -> httpx.Response:
        more = {} if json is None else {"json": json}
        return await self.http.request(
            method, f"/api/v1/{path}", params=query, headers={"authorization": f"Bearer {key}"}, **more
        )

    async def get(self, path: str, key: str = "acme", **query: Any) -> Any:
        answer = await self.ask("GET", path, key, **query)
        assert answer.status_code == 200, answer.text
        return answer.json()

    async def refused(
        self, status: int, method: str, path: str, key: str = "acme", json: Any = None, **query: Any
    ) -> str:
        answer = await self.ask(method, path, key, json, **query)
        assert answer.status_code == status, answer.text
        return str(answer.json()["error"]["code"])


@pytest.fixture
async def office(log: PostgresEventLog, instance: UUID, app_dsn: str) -> AsyncIterator[Office]:
    async with watchtower(log, instance, app_dsn) as tower:
        await tower.log("other", TenantCreated(tenant="other"))
        made = Office(tower)
        async with made.http:
            yield made


async def test_reading_alerts_works_them_out_and_each_sees_its_own(office: Office) -> None:
    await office.tower.log("acme", quota(10))
    await office.tower.use(10)
    page = await office.get("alerts")
    [alert] = page["alerts"]
    assert page["pagination"]["total"] == 1
    assert (alert["kind"], alert["state"], alert["tenant"], alert["used"], alert["limit"]) == (
        "quota_exceeded", "raised", "acme", 10, 10,
    )  # fmt: skip
    assert (await office.get("alerts", "other"))["alerts"] == []
    assert [a["id"] for a in (await office.get("alerts", "ops"))["alerts"]] == [alert["id"]]
    assert (await office.get("alerts", "ops", tenant="other"))["alerts"] == []
    assert (await office.get("alerts", state="resolved"))["alerts"] == []
    assert (await office.get("alerts", kind="failover"))["alerts"] == []
    assert await office.get(f"alerts/{alert['id']}") == alert
    for method, path in (("GET", ""), ("POST", "/acknowledge"), ("POST", "/resolve")):
        assert await office.refused(404, method, f"alerts/{alert['id']}{path}", "other") == "not_found"
    assert await office.refused(403, "GET", "alerts", tenant="other") == "forbidden"
    assert await office.refused(400, "GET", "alerts", state="asleep") == "invalid_request"
    assert await office.refused(400, "GET", "alerts", kind="x") == "invalid_request"


async def test_an_alert_is_acknowledged_silenced_and_resolved_with_who_did_it(office: Office) -> None:
    await office.tower.log("acme", quota(10))
    await office.tower.use(10)
    [alert] = (await office.get("alerts"))["alerts"]
    place = f"alerts/{alert['id']}"
    seen = await office.ask("POST", f"{place}/acknowledge")
    assert (seen.status_code, seen.json()["state"], seen.json()["acknowledged_by"]) == (200, "acknowledged", "key:a")
    assert seen.headers["x-emberlog-position"].startswith("at-")
    again = await office.ask("POST", f"{place}/acknowledge")
    assert again.json() == seen.json()
    silenced = (await office.ask("POST", f"{place}/silence", json={"seconds": 60})).json()
    assert silenced["state"] == "silenced"
    assert (await office.ask("POST", f"{place}/silence", json={"seconds": 0})).json()["state"] == "acknowledged"
    for seconds in (-1, 10**9):
        assert await office.refused(400, "POST", f"{place}/silence", json={"seconds": seconds}) == "invalid_request"
    assert await office.refused(400, "POST", f"{place}/silence", json={"seconds": "x"}) == "invalid_config"
    resolved = (await office.ask("POST", f"{place}/resolve")).json()
    assert (resolved["state"], resolved["reason"], resolved["resolved_by"]) == ("resolved", "closed", "key:a")
    assert (await office.ask("POST", f"{place}/resolve")).json() == resolved
    assert await office.refused(409, "POST", f"{place}/acknowledge") == "resource_constraint"
    assert (await office.get("alerts", state="open"))["alerts"] == [], "what was closed stays closed"


async def test_who_asks_for_all_there_is_to_ask_keeps_nobody_else_waiting(office: Office) -> None:
    many = [asyncio.create_task(office.ask("GET", "alerts")) for _ in range(3 * MAX_READS_OF_A_TENANT)]
    await asyncio.sleep(0)
    assert (await office.ask("GET", "alerts", "other")).status_code == 200
    told = [(await one).status_code for one in many]
    assert set(told) == {200, 429}
    assert told.count(200) >= MAX_READS_OF_A_TENANT
    assert (await office.get("alerts"))["alerts"] == [], "once they are answered it may ask again"


async def test_what_could_not_be_worked_out_is_the_operators_to_retry(office: Office) -> None:
    pool = office.tower.home.log.pool
    await pool.execute(
        "INSERT INTO emberlog.alert_failures (subject, failures, error, retry_at, parked_at) VALUES ('acme', 5, 'why', now(), now())"
    )
    [failure] = (await office.get("alert-failures", "ops"))["failures"]
    assert (failure["tenant"], failure["failures"], failure["parked"], failure["error"]) == ("acme", 5, True, "why")
    assert await office.refused(403, "GET", "alert-failures") == "forbidden"
    assert await office.refused(404, "POST", "alert-failures/retry", "ops", tenant="other") == "not_found"
    assert (await office.ask("POST", "alert-failures/retry", "ops")).json() == {"tenants": ["acme"]}
    assert (await office.get("alert-failures", "ops"))["failures"] == []


async def test_a_webhook_is_made_once_with_its_secret_and_seen_by_its_owner_alone(office: Office) -> None:
    made = await office.ask("POST", "webhooks", json=WEBHOOK | {"id": "mine"})
    assert made.status_code == 201
    assert made.json()["secret"].startswith("whsec_")
    assert "x-emberlog-position" in made.headers
    again = await office.ask("POST", "webhooks", json=WEBHOOK | {"id": "mine"})
    assert (again.status_code, again.json()["secret"]) == (200, None)
    assert (
        await office.refused(409, "POST", "webhooks", json=WEBHOOK | {"id": "mine", "types": ["quota.set"]})
        == "resource_constraint"
    )
    ours = await office.ask("POST", "webhooks", "ops", json=WEBHOOK)
    assert (ours.status_code, ours.json()["tenant"]) == (201, None)
    assert [w["id"] for w in (await office.get("webhooks"))["webhooks"]] == ["mine"]
    assert (await office.get("webhooks", "other"))["webhooks"] == []
    assert [w["id"] for w in (await office.get("webhooks", "ops"))["webhooks"]] == [ours.json()["id"]]
    assert [w["id"] for w in (await office.get("webhooks", "ops", tenant="acme"))["webhooks"]] == ["mine"]
    assert "secret" not in (await office.get("webhooks/mine"))
    for method, path, body in (
        ("GET", "", None), ("DELETE", "", None), ("POST", "/rotate-secret", {}), ("GET", "/deliveries", None),
        ("GET", f"/dead-letters/{uuid4()}", None), ("POST", "/dead-letters/requeue", {}), ("POST", "/dead-letters/discard", {}),
    ):  # fmt: skip
        assert await office.refused(404, method, f"webhooks/mine{path}", "other", body) == "not_found"
    rotated = (await office.ask("POST", "webhooks/mine/rotate-secret", json={"overlap_seconds": 60})).json()
    assert rotated["secret"] != made.json()["secret"]
    assert (
        await office.refused(400, "POST", "webhooks/mine/rotate-secret", json={"overlap_seconds": -1})
        == "invalid_request"
    )
    assert (await office.ask("DELETE", "webhooks/mine")).status_code == 204
    assert await office.refused(404, "DELETE", "webhooks/mine") == "not_found"


async def test_every_wrong_field_of_a_webhook_is_named(office: Office) -> None:
    answer = await office.ask("POST", "webhooks", json={"url": "https://u:p@x/", "types": ["no.such"], "id": "Bad Id"})
    assert answer.status_code == 400
    assert {f["field"] for f in answer.json()["error"]["details"]["fields"]} == {"url", "types", "webhook"}


async def test_dead_letters_are_shown_put_back_and_forgotten(office: Office) -> None:
    await office.ask("POST", "webhooks", json=WEBHOOK | {"id": "mine"})
    pool, events = office.tower.home.log.pool, [uuid4(), uuid4(), uuid4()]
    await deliveries.put(pool, [Planned("mine", n, "acme", "alert.raised", e) for n, e in enumerate(events, 100)], {})
    await pool.execute(
        "UPDATE emberlog.deliveries SET state = 'dead', tries = 8, last_reason = 'HTTP 500', last_status = 500 WHERE position < 102"
    )
    page = await office.get("webhooks/mine/deliveries", limit=2)
    assert ([d["state"] for d in page["deliveries"]], page["pagination"]["total"]) == (["pending", "dead"], 3)
    assert len((await office.get("webhooks/mine/deliveries", state="dead"))["deliveries"]) == 2
    letter = await office.get(f"webhooks/mine/dead-letters/{events[0]}")
    assert (letter["tries"], letter["status"], letter["reason"]) == (8, 500, "HTTP 500")
    assert await office.refused(404, "GET", f"webhooks/mine/dead-letters/{events[2]}") == "not_found"
    assert await office.refused(400, "GET", "webhooks/mine/dead-letters/x") == "invalid_request"
    assert await office.refused(400, "GET", "webhooks/mine/deliveries", state="x") == "invalid_request"
    put_back = await office.ask("POST", "webhooks/mine/dead-letters/requeue", json={"event": str(events[0])})
    assert (put_back.status_code, put_back.json()) == (200, {"count": 1})
    assert (await office.ask("POST", "webhooks/mine/dead-letters/discard", json={})).json() == {"count": 1}
    states = [d["state"] for d in (await office.get("webhooks/mine/deliveries"))["deliveries"]]
    assert states == ["pending", "pending"]
