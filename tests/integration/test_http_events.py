"""`GET /api/v1/events`: whose events a key sees, page by page to the end, and what it is not told."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any
from uuid import UUID, uuid4

import pytest
import structlog

from adapters.postgres.event_scan import EventFilter, EventScan
from domain.cursor import decode_cursor, encode_cursor
from domain.events import EVENT_TYPES, encode_data
from domain.ports.event_log import NewEvent, StoredEvent
from gateway.event_document import event_document
from tests.support.databases import execute
from tests.support.projecting import generated
from tests.support.reading import Site, reading_site
from tests.support.sealing import PARTITION
from tests.unit.wire.fake_service import ADMIN_KEY, BILLING_KEY, INSTALLATION_KEY, KEY, OPERATOR_KEY

EVENTS = "/api/v1/events"


@pytest.fixture
async def site(migrated_dsn: str) -> AsyncIterator[Site]:
    async with reading_site(migrated_dsn) as running:
        yield running


def event(
    tenant: str = "acme", kind: str = "embedding.requested", stream: str | None = None, data: Any = None
) -> NewEvent:
    name = uuid4()
    return NewEvent(
        key=name.bytes,
        event_id=name.bytes,
        tenant=tenant,
        stream=stream or f"request/{tenant}/{name.hex[:8]}",
        type=kind,
        data=json.dumps(data or {"agent": "a"}).encode(),
    )


async def append(site: Site, *events: NewEvent) -> list[str]:
    """Append them; their ids."""
    instance = await site.log.register_instance("test", 60)
    await site.log.append(instance, events)
    return [str(UUID(bytes=e.event_id)) for e in events]


async def ids(site: Site, key: str, **query: Any) -> list[str]:
    answer = await site.get(EVENTS, key, **query)
    assert answer.status_code == 200, answer.text
    return [e["id"] for e in answer.json()["events"]]


# -- reach --------------------------------------------------------------------------------------------------------------


async def test_a_tenants_key_sees_its_tenants_events_and_an_operators_key_all(site: Site) -> None:
    mine, others, ours = await append(site, event("acme"), event("other"), event("_system"))
    assert await ids(site, BILLING_KEY) == await ids(site, ADMIN_KEY) == [mine]
    assert await ids(site, OPERATOR_KEY) == [mine, others, ours]
    assert await ids(site, OPERATOR_KEY, tenants="other,_system") == [others, ours]
    assert await ids(site, BILLING_KEY, tenants="acme") == [mine]


@pytest.mark.parametrize(
    ("key", "query", "status", "code"),
    [
        (None, {}, 401, "unauthorized"),
        ("em_nobody", {}, 401, "unauthorized"),
        (KEY, {}, 403, "forbidden"),
        (INSTALLATION_KEY, {}, 403, "forbidden"),
        (BILLING_KEY, {"tenants": "other"}, 403, "forbidden"),
        (BILLING_KEY, {"tenants": "acme,other"}, 403, "forbidden"),
        (BILLING_KEY, {"tenants": "nobody"}, 403, "forbidden"),
        (OPERATOR_KEY, {"tenants": "nobody"}, 404, "not_found"),
    ],
)
async def test_who_may_not_read_is_told_so(
    site: Site, key: str | None, query: dict[str, str], status: int, code: str
) -> None:
    headers = {} if key is None else {"authorization": f"Bearer {key}"}
    answer = await site.http.get(EVENTS, params=query, headers=headers)
    assert (answer.status_code, answer.json()["error"]["code"]) == (status, code)


async def test_a_tenant_is_shown_neither_positions_nor_what_a_provider_charges_nor_the_hashes_of_keys(
    site: Site,
) -> None:
    secret = {"key": "0123", "hash": "5e" * 32, "scopes": ["agent"]}
    billed = json.loads(encode_data(generated("r1")))
    await append(site, event(kind="embedding.generated", data=billed), event(kind="key.created", data=secret))
    told = (await site.get(EVENTS, BILLING_KEY)).json()["events"]
    assert [set(e) for e in told] == [
        {"id", "tenant", "stream", "version", "type", "schema_version", "recorded_at", "data"}
    ] * 2
    assert told[0]["data"] == {k: v for k, v in billed.items() if k != "provider_nano_usd"}
    assert told[1]["data"] == {"key": "0123", "scopes": ["agent"]}
    whole = (await site.get(EVENTS, OPERATOR_KEY)).json()["events"]
    assert [e["position"] for e in whole] == [1, 2]
    assert [e["data"] for e in whole] == [billed, secret]


def test_no_event_type_has_a_field_of_a_providers_charge_that_a_tenant_is_shown() -> None:
    charged = {name for name, struct in EVENT_TYPES.items() if "provider_nano_usd" in struct.__struct_fields__}
    assert {"embedding.generated", "embedding.failed", "embedding.reembedded"} <= charged
    for kind in [*EVENT_TYPES, "of.a.newer.build"]:
        stored = StoredEvent(1, bytes(16), "acme", "s", None, kind, 1, 0, b'{"provider_nano_usd":7,"n":1}', b"")
        if kind in charged or kind not in EVENT_TYPES:
            assert bytes(event_document(stored, for_tenant=True).data) == b'{"n":1}'
        assert bytes(event_document(stored, for_tenant=False).data) == stored.data


def test_what_a_failed_attempt_may_cost_us_is_not_shown_to_the_tenant_either() -> None:
    attempt = {"endpoint": "a", "reason": "timeout", "ms": 5, "provider_nano_usd": 7}
    data = json.dumps({"attempts": [attempt], "provider_nano_usd": 9}).encode()
    stored = StoredEvent(1, bytes(16), "acme", "s", None, "embedding.generated", 1, 0, data, b"")
    shown = json.loads(bytes(event_document(stored, for_tenant=True).data))
    assert shown == {"attempts": [{"endpoint": "a", "reason": "timeout", "ms": 5}]}
    assert bytes(event_document(stored, for_tenant=False).data) == data


def numbers(node: Any) -> set[int]:
    """Every number within a JSON document."""
    if isinstance(node, dict):
        return set().union(*(numbers(value) for value in node.values()))
    if isinstance(node, list):
        return set().union(*(numbers(item) for item in node))
    return {node} if isinstance(node, int) else set()


async def test_no_answer_to_a_tenant_holds_a_position_or_the_logs_incarnation(site: Site) -> None:
    await append(site, *(event("other") for _ in range(4_321)), event("acme"))
    incarnation = (await site.log.identity()).incarnation
    answer = await site.get(EVENTS, BILLING_KEY)
    assert numbers(answer.json()) == {1}  # the schema version
    assert 4_322 in numbers((await site.get(EVENTS, OPERATOR_KEY, types="embedding.requested", tenants="acme")).json())
    for told in (answer.text, *answer.headers.values()):
        assert str(incarnation) not in told
        assert incarnation.hex not in told
    assert decode_cursor(answer.headers["x-emberlog-cursor"], incarnation, 4_322) == 4_322


# -- pages --------------------------------------------------------------------------------------------------------------


async def test_cursors_lead_through_the_log_to_its_end_and_on(site: Site) -> None:
    written = await append(site, *(event() for _ in range(25)))
    seen, cursor = [], ""
    while True:
        page = await site.get(EVENTS, BILLING_KEY, after=cursor, limit=10)
        if page.headers["x-emberlog-cursor"] == cursor:
            break
        seen += [e["id"] for e in page.json()["events"]]
        cursor = page.headers["x-emberlog-cursor"]
    assert seen == written
    assert page.json() == {"events": []}
    later = await append(site, event())
    assert await ids(site, BILLING_KEY, after=cursor) == later
    assert await ids(site, BILLING_KEY, after="start", limit=1) == written[:1]


async def test_a_hundred_events_come_where_no_limit_is_given(site: Site) -> None:
    written = await append(site, *(event() for _ in range(101)))
    assert await ids(site, BILLING_KEY) == written[:100]
    assert await ids(site, BILLING_KEY, limit=1000) == written


async def test_filters_pass_what_is_in_each_of_them(site: Site) -> None:
    first, second, third, fourth = await append(
        site,
        event("acme", "embedding.requested", "request/acme/1"),
        event("acme", "embedding.generated", "request/acme/1"),
        event("other", "embedding.generated", "request/other/1"),
        event("acme", "embedding.failed", "request/acme/2"),
    )
    assert await ids(site, OPERATOR_KEY, types="embedding.generated") == [second, third]
    assert await ids(site, OPERATOR_KEY, types="embedding.generated,embedding.failed", tenants="acme") == [
        second,
        fourth,
    ]
    assert await ids(site, OPERATOR_KEY, streams="request/acme/1,request/other/1") == [first, second, third]
    assert await ids(site, BILLING_KEY, streams="request/other/1") == []


async def test_an_empty_stretch_is_passed_in_bounded_steps_that_each_get_further(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    bounded = EventScan.page

    async def short(self: EventScan, after: int, head: int, limit: int, wanted: EventFilter) -> Any:
        return await bounded(self, after, head, limit, wanted, scan=10)

    monkeypatch.setattr(EventScan, "page", short)
    *_, wanted = await append(site, *(event("other") for _ in range(34)), event("acme"))
    identity = await site.log.identity()
    cursor = ""
    places: list[int] = []
    found: list[str] = []
    while not found:
        page = await site.get(EVENTS, BILLING_KEY, after=cursor)
        found = [e["id"] for e in page.json()["events"]]
        cursor = page.headers["x-emberlog-cursor"]
        places.append(decode_cursor(cursor, identity.incarnation, 35))
    assert found == [wanted]
    assert places == [10, 20, 30, 35]


async def test_lines_of_json_are_sent_to_whoever_accepts_them_rather(site: Site) -> None:
    written = await append(site, event(), event())
    for accept in ("application/x-ndjson", "application/json;q=0.5, application/x-ndjson"):
        answer = await site.get(EVENTS, BILLING_KEY, {"accept": accept})
        assert answer.headers["content-type"] == "application/x-ndjson"
        assert [json.loads(line)["id"] for line in answer.text.splitlines()] == written
        assert answer.headers["x-emberlog-cursor"]
    for accept in ("*/*", "application/*", "application/json", "text/html, */*;q=0.1", "application/x-ndjson;q=0, */*"):
        answer = await site.get(EVENTS, BILLING_KEY, {"accept": accept})
        assert answer.headers["content-type"] == "application/json"
    refused = await site.get(EVENTS, BILLING_KEY, {"accept": "text/csv"})
    assert (refused.status_code, refused.json()["error"]["param"]) == (406, "accept")


async def test_every_header_that_a_page_has_is_documented(site: Site) -> None:
    document = (await site.http.get("/openapi.json")).json()
    answers = document["paths"][EVENTS]["get"]["responses"]
    page = await site.get(EVENTS, BILLING_KEY)
    common = {"date", "content-type", "content-length"}
    assert set(page.headers) - common == set(answers["200"]["headers"])
    assert set(answers["200"]["content"]) == {"application/json", "application/x-ndjson"}
    schema = document["components"]["schemas"]["EventDocument"]
    await append(site, event())
    [shown] = (await site.get(EVENTS, OPERATOR_KEY)).json()["events"]
    assert set(shown) == set(schema["properties"]) - {"shredded"}, "that only events of shredded tenants have"
    asked = {p["name"] for p in document["paths"][EVENTS]["get"]["parameters"]}
    assert asked == {"after", "limit", "types", "streams", "tenants"}


# -- bad input and bad times --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("query", "field"),
    [
        ({"limit": "0"}, "limit"),
        ({"limit": "1001"}, "limit"),
        ({"limit": "-1"}, "limit"),
        ({"limit": "ten"}, "limit"),
        ({"limit": "9" * 400}, "limit"),
        ({"limit": ["1", "2"]}, "limit"),
        ({"types": "embedding.generate"}, "types"),
        ({"type": "embedding.generated"}, "type"),
        ({"streams": "a\0b"}, "streams"),
        ({"streams": "x" * 257}, "streams"),
        ({"streams": ",".join(str(n) for n in range(101))}, "streams"),
    ],
)
async def test_a_bad_parameter_is_refused_by_name(site: Site, query: dict[str, Any], field: str) -> None:
    answer = await site.get(EVENTS, OPERATOR_KEY, **query)
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, field)


async def test_a_wrong_foreign_or_future_cursor_is_refused(site: Site) -> None:
    await append(site, event())
    incarnation = (await site.log.identity()).incarnation
    for cursor, says in (
        ("nonsense", "not a cursor"),
        ("x" * 28, "not a cursor"),
        (encode_cursor(uuid4(), 1), "another log"),
        (encode_cursor(incarnation, 2), "ahead of the log"),
    ):
        error = (await site.get(EVENTS, BILLING_KEY, after=cursor)).json()["error"]
        assert (error["code"], error["param"]) == ("invalid_cursor", "after")
        assert says in error["message"]


async def test_a_cursor_from_before_a_restore_is_refused(site: Site, migrated_dsn: str) -> None:
    await append(site, event())
    cursor = (await site.get(EVENTS, BILLING_KEY)).headers["x-emberlog-cursor"]
    await execute(migrated_dsn, "UPDATE emberlog.log_identity SET incarnation = gen_random_uuid()")
    refused = await site.get(EVENTS, BILLING_KEY, after=cursor)
    assert (refused.status_code, refused.json()["error"]["code"]) == (400, "invalid_cursor")
    assert "before it was restored" in refused.json()["error"]["message"]


async def test_a_tenant_has_a_bounded_number_of_reads_and_leaves_others_theirs(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    gate, waiting = asyncio.Event(), 0
    place = EventScan.place

    async def held(self: EventScan) -> tuple[UUID, int]:
        nonlocal waiting
        waiting += 1
        await gate.wait()
        return await place(self)

    monkeypatch.setattr(EventScan, "place", held)
    under_way = [asyncio.create_task(site.get(EVENTS, BILLING_KEY)) for _ in range(8)]
    while waiting < 8:
        await asyncio.sleep(0)
    refused = await site.get(EVENTS, ADMIN_KEY)
    assert (refused.status_code, refused.json()["error"]["code"]) == (429, "too_many_in_flight")
    assert refused.headers["retry-after"] == "1"
    another = asyncio.create_task(site.get(EVENTS, OPERATOR_KEY))
    while waiting < 9:
        await asyncio.sleep(0)
    gate.set()
    assert {(await answer).status_code for answer in [*under_way, another]} == {200}
    assert (await site.get(EVENTS, ADMIN_KEY)).status_code == 200


async def test_without_the_database_a_read_is_unavailable_and_may_be_tried_again(site: Site) -> None:
    await site.gateway.service.reads.close()
    answer = await site.get(EVENTS, BILLING_KEY)
    assert (answer.status_code, answer.json()["error"]["code"]) == (503, "unavailable")
    assert answer.headers["x-should-retry"] == "true"


# -- a damaged log ------------------------------------------------------------------------------------------------------


async def test_where_events_are_missing_the_asker_is_told_to_wait_and_the_operator_what_to_mend(
    site: Site, migrated_dsn: str
) -> None:
    await append(site, event(), event(), event())
    await execute(migrated_dsn, f"ALTER TABLE {PARTITION} DISABLE TRIGGER append_only")
    await execute(migrated_dsn, f"DELETE FROM {PARTITION} WHERE position = 1")
    with structlog.testing.capture_logs() as lines:
        answer = await site.get(EVENTS, OPERATOR_KEY)
    assert (answer.status_code, answer.json()["error"]["code"]) == (503, "unavailable")
    assert "operator" in answer.json()["error"]["message"]
    [told] = [line for line in lines if line["event"] == "log_damaged"]
    assert (told["position"], "no event at position 1" in told["detail"]) == (1, True)
