"""Rate limits by the management API."""

from __future__ import annotations

from typing import Any

import pytest

from domain.events import KeyCreated
from tests.support.api import ApiSite
from tests.unit.wire.fake_service import ADMIN_KEY, OPERATOR_KEY

PATH = "/api/v1/rate-limits"


async def listed(site: ApiSite, key: str = ADMIN_KEY, **query: Any) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = (await site.ask("GET", PATH, key, **query)).json()["rate_limits"]
    return found


async def test_a_limit_is_set_changed_whole_listed_and_removed(site: ApiSite) -> None:
    wanted = {"scope": "agent", "subject": "scout", "requests_per_minute": 5, "tokens_per_minute": 1000}
    answer = await site.ask("PUT", PATH, ADMIN_KEY, wanted)
    assert (answer.status_code, answer.json()) == (200, wanted)
    assert answer.headers["x-emberlog-position"]
    await site.ask("PUT", PATH, ADMIN_KEY, {"scope": "agent", "requests_per_minute": 2})
    await site.ask("PUT", PATH, OPERATOR_KEY, {"scope": "tenant", "requests_per_minute": 99}, tenant="acme")
    await site.ask("PUT", PATH, ADMIN_KEY, {"scope": "agent", "subject": "scout", "tokens_per_minute": 7})
    assert await listed(site) == [
        {"scope": "tenant", "subject": None, "requests_per_minute": 99, "tokens_per_minute": None},
        {"scope": "agent", "subject": None, "requests_per_minute": 2, "tokens_per_minute": None},
        {"scope": "agent", "subject": "scout", "requests_per_minute": None, "tokens_per_minute": 7},
    ]
    assert await listed(site, OPERATOR_KEY, tenant="other") == []
    for _ in range(2):
        gone = await site.ask("DELETE", PATH, ADMIN_KEY, scope="agent", subject="scout")
        assert gone.status_code == 204
    assert [limit["subject"] for limit in await listed(site)] == [None, None]


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"scope": "agent"}, "requests_per_minute"),
        ({"scope": "team", "requests_per_minute": 5}, "scope"),
        ({"requests_per_minute": 5}, "scope"),
        ({"scope": "agent", "requests_per_minute": -5}, "requests_per_minute"),
        ({"scope": "agent", "requests_per_minute": 10**40}, "requests_per_minute"),
        ({"scope": "agent", "requests_per_minute": 1.5}, "requests_per_minute"),
        ({"scope": "agent", "requests_per_minute": "many"}, "requests_per_minute"),
        ({"scope": "agent", "requests_per_second": 5}, "requests_per_second"),
        ({"scope": "key", "subject": "0123456789abcdef", "requests_per_minute": 5}, "subject"),
    ],
)
async def test_what_is_no_limit_is_refused_with_its_field_and_nothing_is_set(
    site: ApiSite, body: dict[str, Any], field: str
) -> None:
    await site.given("other", "tenant/other", KeyCreated(key="0123456789abcdef", hash="", scopes=[], tenant="other"))
    answer = await site.ask("PUT", PATH, ADMIN_KEY, body)
    assert (answer.status_code, answer.json()["error"]["code"]) == (400, "invalid_config")
    assert answer.json()["error"]["details"]["field"] == field
    assert await listed(site) == []


async def test_the_tenants_own_limit_is_the_operators_to_set_and_to_remove(site: ApiSite) -> None:
    limit = {"scope": "tenant", "requests_per_minute": 99}
    await site.ask("PUT", PATH, OPERATOR_KEY, limit, tenant="acme")
    assert (await site.ask("PUT", PATH, ADMIN_KEY, {**limit, "requests_per_minute": 999})).status_code == 403
    assert (await site.ask("DELETE", PATH, ADMIN_KEY, scope="tenant")).status_code == 403
    assert (await listed(site))[0]["requests_per_minute"] == 99
    assert (await site.ask("DELETE", PATH, OPERATOR_KEY, scope="tenant", tenant="acme")).status_code == 204


async def test_a_removal_that_does_not_say_of_what_is_refused(site: ApiSite) -> None:
    answer = await site.ask("DELETE", PATH, ADMIN_KEY)
    assert (answer.status_code, answer.json()["error"]["details"]["field"]) == (400, "scope")
