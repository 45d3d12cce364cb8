"""What holds for every route of the management API: who may, about whom, with what, and what became of it."""

from __future__ import annotations

import msgspec
import pytest

from domain.events import TenantConfigured
from gateway.decisions import decision_event
from gateway.http.api.table import ROUTES
from tests.support.api import ApiSite
from tests.unit.wire.fake_service import ADMIN_KEY, BILLING_KEY, INSTALLATION_KEY, KEY, OPERATOR_KEY

SETTINGS = "/api/v1/tenant-settings"


async def test_a_write_is_in_force_when_it_is_answered_and_carries_its_place_in_the_log(site: ApiSite) -> None:
    written = await site.ask("PUT", SETTINGS, ADMIN_KEY, {"failover": "any"})
    assert (written.status_code, written.json()["failover"], written.json()["version"]) == (200, "any", 2)
    position = written.headers["x-emberlog-position"]
    read = await site.ask("GET", SETTINGS, ADMIN_KEY, after_position=position)
    assert read.json() == written.json()
    [_, _, event] = await site.log.read(0, 10)
    assert msgspec.json.decode(event.data) == {"failover": "any", "actor": "key:k6"}


async def test_what_is_so_already_is_answered_and_written_nowhere(site: ApiSite) -> None:
    await site.ask("PUT", SETTINGS, ADMIN_KEY, {"failover": "any"})
    again = await site.ask("PUT", SETTINGS, ADMIN_KEY, {"failover": "any"})
    assert (again.status_code, again.json()["version"], await site.log.head()) == (200, 2, 3)


async def test_a_position_that_is_not_reached_or_no_cursor_is_refused(site: ApiSite) -> None:
    answer = await site.ask("GET", SETTINGS, ADMIN_KEY, after_position="no cursor")
    assert (answer.status_code, answer.json()["error"]["code"]) == (400, "invalid_cursor")


async def test_an_expected_version_that_is_not_there_any_more_changes_nothing(site: ApiSite) -> None:
    answer = await site.ask("PUT", SETTINGS, ADMIN_KEY, {"failover": "any"}, expected_version=7)
    assert (answer.status_code, answer.json()["error"]["code"]) == (409, "version_conflict")
    assert answer.json()["error"]["details"] == {"expected_version": 7, "version": 1}
    assert await site.log.head() == 2
    assert (await site.ask("PUT", SETTINGS, ADMIN_KEY, {"failover": "any"}, expected_version=1)).status_code == 200


@pytest.mark.parametrize("expected", [None, 1])
async def test_a_race_is_decided_anew_unless_the_asker_said_what_it_had_read(
    site: ApiSite, expected: int | None
) -> None:
    site.backing.before = [decision_event("acme", "tenant/acme", TenantConfigured(time_zone="Europe/Paris"))]
    query = {} if expected is None else {"expected_version": expected}
    answer = await site.ask("PUT", SETTINGS, ADMIN_KEY, {"failover": "any"}, **query)
    if expected is None:
        assert (answer.json()["failover"], answer.json()["time_zone"]) == ("any", "Europe/Paris")
    else:
        assert answer.status_code == 409
        assert (await site.ask("GET", SETTINGS, ADMIN_KEY)).json()["failover"] == "same_space"


async def test_every_failing_field_is_named_at_once_and_nothing_is_changed(site: ApiSite) -> None:
    wrong = {"failover": 7, "time_zone": "Mars/Base", "colour": "red", "require_known_prices": "yes"}
    answer = await site.ask("PUT", SETTINGS, ADMIN_KEY, wrong)
    assert (answer.status_code, answer.json()["error"]["code"]) == (400, "invalid_config")
    assert [f["field"] for f in answer.json()["error"]["details"]["fields"]] == [
        "failover",
        "colour",
        "require_known_prices",
    ]
    answer = await site.ask("PUT", SETTINGS, ADMIN_KEY, {"time_zone": "Mars/Base", "failover": "perhaps"})
    assert [f["field"] for f in answer.json()["error"]["details"]["fields"]] == ["failover", "time_zone"]
    assert await site.log.head() == 2


@pytest.mark.parametrize("body", [b"", b"[]", b"7", b"{", b"\xff", b'{"failover":"a\\u0000b"}', b"[" * 5000])
async def test_a_body_that_is_no_object_is_refused(site: ApiSite, body: bytes) -> None:
    headers = {"authorization": f"Bearer {ADMIN_KEY}", "content-type": "application/json"}
    answer = await site.http.put(SETTINGS, content=body, headers=headers)
    assert answer.status_code == 400


@pytest.mark.parametrize(
    ("key", "tenant", "status"),
    [
        (KEY, None, 403),
        (BILLING_KEY, None, 403),
        (INSTALLATION_KEY, "acme", 403),
        (ADMIN_KEY, "acme", 200),
        (ADMIN_KEY, "other", 403),
        (OPERATOR_KEY, None, 400),
        (OPERATOR_KEY, "other", 200),
        (OPERATOR_KEY, "nobody", 404),
        ("em_wrong", None, 401),
    ],
)
async def test_a_key_reaches_its_own_tenant_and_an_operator_the_one_it_names(
    site: ApiSite, key: str, tenant: str | None, status: int
) -> None:
    query = {} if tenant is None else {"tenant": tenant}
    assert (await site.ask("GET", SETTINGS, key, **query)).status_code == status


async def test_the_tier_is_for_operators_to_set(site: ApiSite) -> None:
    assert (await site.ask("PUT", SETTINGS, ADMIN_KEY, {"tier": "free"})).status_code == 403
    assert (await site.ask("PUT", SETTINGS, OPERATOR_KEY, {"tier": "free"}, tenant="acme")).json()["tier"] == "free"


async def test_a_misspelt_parameter_is_refused(site: ApiSite) -> None:
    assert (await site.ask("GET", SETTINGS, ADMIN_KEY, tenat="acme")).status_code == 400


async def test_what_changes_no_stream_of_decisions_takes_no_version_to_expect(site: ApiSite) -> None:
    unversioned = {route.name for route in ROUTES if route.writes and not route.versioned}
    assert unversioned == {
        "selectModel", "attestModel", "resolveAlert", "retryAlertFailures", "requeueWebhookDeadLetters", "discardWebhookDeadLetters",
        "runSchedule", "discoverModels", "deleteCollectionRows", "searchCollection",
    }  # fmt: skip
    answer = await site.ask("POST", "/api/v1/embedding-models/select", ADMIN_KEY, {}, expected_version=1)
    assert answer.status_code == 400
    assert "expected_version" in answer.json()["error"]["message"]
