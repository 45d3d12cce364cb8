"""Settings that are changed while gateways run."""

from __future__ import annotations

from typing import Any

import pytest

from gateway.live_settings import LIVE, overlaid
from tests.support.api import ApiSite
from tests.unit.wire.fake_service import ADMIN_KEY, OPERATOR_KEY


async def test_a_changed_setting_is_shown_with_its_source_until_it_is_taken_back(site: ApiSite) -> None:
    path = "/api/v1/settings/cache_ttl_seconds"
    assert (await site.ask("GET", path, OPERATOR_KEY)).json() == {
        "name": "cache_ttl_seconds",
        "value": 3600,
        "source": "start",
    }
    changed = await site.ask("PUT", path, OPERATOR_KEY, {"value": 60})
    assert changed.json() == {"name": "cache_ttl_seconds", "value": 60, "source": "event"}
    assert overlaid(site.service.settings, site.plane.settings.values).cache_ttl_seconds == 60
    assert (await site.ask("DELETE", path, OPERATOR_KEY)).status_code == 204
    assert overlaid(site.service.settings, site.plane.settings.values) == site.service.settings
    assert (await site.ask("GET", path, OPERATOR_KEY)).json()["source"] == "start"


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("cache_ttl_seconds", 0),
        ("cache_ttl_seconds", "soon"),
        ("cache_ttl_seconds", True),
        ("cache_ttl_seconds", 1e300),
        ("cache_ttl_seconds", 10**30),
        ("cache_ttl_seconds", str(2**63)),
        ("cache_bytes", -1),
        ("cache_bytes", 2**64),
        ("max_queued_texts", 2**63),
        ("max_connections", 2**70),
        ("drain_seconds", "nan"),
        ("drain_seconds", "inf"),
        ("log_level", "loud"),
        ("drain_seconds", 1e9),
        ("drain_seconds", None),
        ("max_connections", 0),
    ],
)
async def test_a_value_that_the_setting_cannot_have_is_refused_with_its_name(
    site: ApiSite, name: str, value: Any
) -> None:
    answer = await site.ask("PUT", f"/api/v1/settings/{name}", OPERATOR_KEY, {"value": value})
    assert (answer.status_code, answer.json()["error"]["code"]) == (400, "invalid_config")
    assert answer.json()["error"]["details"]["field"] in (name, "value")
    assert site.plane.settings.values == {}


async def test_what_was_decided_at_the_start_cannot_be_changed_and_tenants_change_nothing(site: ApiSite) -> None:
    assert (await site.ask("PUT", "/api/v1/settings/listen", OPERATOR_KEY, {"value": "0.0.0.0:1"})).status_code == 404
    assert (await site.ask("PUT", "/api/v1/settings/log_level", ADMIN_KEY, {"value": "debug"})).status_code == 403
    assert [s["name"] for s in (await site.ask("GET", "/api/v1/settings", OPERATOR_KEY)).json()["settings"]] == [*LIVE]


def test_a_value_of_another_build_is_left_out(site: ApiSite) -> None:
    settings = site.service.settings
    assert overlaid(settings, {"log_level": '"shrill"', "unheard_of": "1"}) == settings
