"""Routes of the management API that read the views of a database."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta

import msgspec
import pytest

from domain.events import AlertRaised
from projections.alerts import ALERTS
from projections.threads import THREADS
from tests.support.projecting import Connection, Recorded, failed, generated, in_thread, requested, write_log
from tests.support.reading import Site, reading_site
from tests.unit.wire.fake_service import ADMIN_KEY, BILLING_KEY, KEY, OPERATOR_KEY

NOW = datetime.now(UTC).replace(second=0, microsecond=0)
AT = NOW - timedelta(minutes=10)
TINY = "tiny"


@pytest.fixture
async def site(migrated_dsn: str) -> AsyncIterator[Site]:
    async with reading_site(migrated_dsn, THREADS, ALERTS) as site:
        yield site


def _day() -> list[Recorded]:
    events = [
        Recorded(AT, "acme", requested("r1", model=TINY)),
        Recorded(AT, "acme", generated("r1", model=TINY, latency_ms=80, cached_inputs=1)),
        Recorded(AT, "acme", requested("r2", model=TINY)),
        Recorded(AT, "acme", failed("r2", model=TINY)),
        Recorded(AT, "other", requested("r1", model=TINY)),
        Recorded(AT, "other", generated("r1", model=TINY, latency_ms=20, nano_usd=None)),
        Recorded(AT, "other", generated("r9", model="another")),
    ]
    return [in_thread(event, "th-1") for event in events]


async def test_a_thread_shows_its_tenants_requests_in_order_page_by_page(site: Site, owner: Connection) -> None:
    await write_log(owner, _day())
    await site.runner.start()
    await site.runner.wait_for("threads", 7, 20)
    first = (await site.get("/api/v1/threads/th-1", BILLING_KEY, limit=3)).json()
    assert [(e["request_id"], e["state"]) for e in first["entries"]] == [
        ("r1", "requested"), ("r1", "generated"), ("r2", "requested"),
    ]  # fmt: skip
    rest = (await site.get("/api/v1/threads/th-1", BILLING_KEY, after=first["cursor"])).json()
    assert [(e["request_id"], e["state"], e["code"]) for e in rest["entries"]] == [("r2", "failed", "provider_error")]
    end = (await site.get("/api/v1/threads/th-1", BILLING_KEY, after=rest["cursor"])).json()
    assert (end["entries"], end["cursor"]) == ([], rest["cursor"])
    other = (await site.get("/api/v1/threads/th-1", OPERATOR_KEY, tenant="other")).json()
    assert [e["nano_usd"] for e in other["entries"]] == [0, None, 100]
    assert (await site.get("/api/v1/threads/unknown", ADMIN_KEY)).json()["entries"] == []
    assert (await site.get("/api/v1/threads/th-1", KEY)).status_code == 403


async def test_a_models_metrics_are_its_tenants_own_or_those_of_all_and_come_with_its_alerts(
    site: Site, owner: Connection
) -> None:
    raised = AlertRaised(
        alert="a1", kind="price_unknown", severity="warning", summary="no price", at=1, labels={"model": TINY}
    )
    used_up = AlertRaised(
        alert="a2", kind="quota_exceeded", severity="critical", summary="no tokens", at=1,
        labels={"scope": "model", "subject": TINY, "unit": "tokens", "window": "day", "period": "2026-11-21"},
    )  # fmt: skip
    of_agent = msgspec.structs.replace(used_up, alert="a3", labels={**used_up.labels, "scope": "agent"})
    await write_log(owner, [*_day(), *(Recorded(AT, "acme", data) for data in (raised, used_up, of_agent))])
    await site.runner.start()
    for view in ("usage", "alerts"):
        await site.runner.wait_for(view, 10, 20)
    own = (await site.get("/api/v1/models/tiny/metrics", ADMIN_KEY)).json()
    assert own["degraded"] == []
    assert (own["usage"]["requests"], own["usage"]["failed"], own["usage"]["error_rate"]) == (1, 1, 0.5)
    assert own["usage"]["cache_hit_rate"] == 0.5
    assert own["usage"]["requests_per_second"] == round(1 / 3600, 6)
    assert own["usage"]["latency_ms"] == {"mean": 80.0, "p50": 77.5, "p95": 79.8, "p99": 80.0, "max": 80}
    assert sorted(own["alerts"], key=lambda alert: alert["id"]) == [
        {"id": "a1", "kind": "price_unknown", "severity": "warning", "summary": "no price", "state": "raised"},
        {"id": "a2", "kind": "quota_exceeded", "severity": "critical", "summary": "no tokens", "state": "raised"},
    ]
    every = (await site.get("/api/v1/models/tiny/metrics", OPERATOR_KEY)).json()
    assert (every["usage"]["requests"], every["usage"]["unpriced"], every["usage"]["nano_usd"]) == (2, 1, 100)
    before = (await site.get("/api/v1/models/tiny/metrics", OPERATOR_KEY, to=AT.isoformat(), from_="2020-01-01")).json()
    assert before["error"]["details"]["field"] == "from"
    turned = (await site.get("/api/v1/models/tiny/metrics", OPERATOR_KEY, to="2020-01-01", from_="2020-01-02")).json()
    assert turned["error"]["details"]["field"] == "to"
    assert (await site.get("/api/v1/models/none/metrics", OPERATOR_KEY)).status_code == 404
    assert (await site.get("/api/v1/models/tiny/metrics", ADMIN_KEY, tenant="other")).status_code == 403


async def test_metrics_whose_view_is_out_of_reach_are_marked_and_the_rest_is_there(
    site: Site, owner: Connection
) -> None:
    await owner.execute("ALTER VIEW projections.alerts RENAME TO alerts_away")
    answer = (await site.get("/api/v1/models/tiny/metrics", OPERATOR_KEY)).json()
    assert (answer["degraded"], answer["alerts"], answer["usage"]["requests"]) == (["alerts"], None, 0)
    assert answer["usage"]["latency_ms"] is None
