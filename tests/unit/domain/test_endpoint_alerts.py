"""Which endpoints need a person, whose business that is, and what is no news yet."""

from __future__ import annotations

import msgspec
import pytest

from domain.catalogue import Endpoint
from domain.endpoint_alerts import endpoint_conditions
from domain.endpoints import Endpoints
from domain.events import BreakerChanged, EndpointAttested

MAIN = Endpoint("main", "openai", {"small": ""})
OWN = Endpoint("own", "openai", {"small": ""}, tenant="acme")
OPEN = BreakerChanged("main", "open", "closed", "failures", 1_000_000_000, 5, until=1_030_000_000)


@pytest.fixture
def known() -> Endpoints:
    return Endpoints()


def seen(known: Endpoints, now: float, **ailing: tuple[str, float | None]) -> list[tuple[str, str, bool]]:
    return [(c.kind, c.tenant, c.news) for c in endpoint_conditions(known, [MAIN, OWN], ailing, now)]


def test_a_circuit_that_stays_open_is_told_after_a_moment_and_until_it_is_closed(known: Endpoints) -> None:
    known.apply("_system", OPEN)
    assert seen(known, 1_004) == [("circuit_open", "_system", False)]
    assert seen(known, 1_005) == [("circuit_open", "_system", True)]
    known.apply("_system", msgspec.structs.replace(OPEN, state="half_open", at=1_030_000_000))
    assert seen(known, 1_030) == [("circuit_open", "_system", True)]
    known.apply("_system", msgspec.structs.replace(OPEN, at=1_031_000_000))
    assert seen(known, 1_032) == [("circuit_open", "_system", False)]  # its alert stays open
    known.apply("_system", msgspec.structs.replace(OPEN, state="closed"))
    assert seen(known, 1_100) == []


def test_the_circuit_of_an_endpoint_that_is_gone_is_nobodys_business(known: Endpoints) -> None:
    known.apply("_system", msgspec.structs.replace(OPEN, endpoint="gone"))
    assert seen(known, 2_000) == []


def test_what_a_tenant_has_for_itself_is_that_tenants_business(known: Endpoints) -> None:
    known.apply("acme", msgspec.structs.replace(OPEN, endpoint="own"))
    assert seen(known, 2_000) == [("circuit_open", "acme", True)]


def test_an_endpoint_that_is_unhealthy_for_a_minute_is_told_unless_its_open_circuit_says_it(known: Endpoints) -> None:
    assert seen(known, 1_059, main=("checks fail", 1_000.0)) == [("endpoint_unhealthy", "_system", False)]
    [condition] = endpoint_conditions(known, [MAIN], {"main": ("checks fail", 1_000.0)}, 1_060)
    assert condition.news
    assert condition.summary.endswith("main is unhealthy: checks fail")
    assert condition.labels == {"endpoint": "main", "provider": "openai"}
    known.apply("_system", OPEN)
    assert [kind for kind, _, _ in seen(known, 1_060, main=("checks fail", 1_000.0))] == ["circuit_open"]


def test_drift_is_told_of_each_space_while_the_endpoint_is_configured_so(known: Endpoints) -> None:
    told = EndpointAttested("main", "small", "small@1/4/unit", passed=False, at=1, configuration=MAIN.configuration)
    known.apply("_system", told)
    known.apply("_system", msgspec.structs.replace(told, space="small@1/8/unit"))
    found = endpoint_conditions(known, [MAIN], {}, 5)
    assert [(c.kind, dict(c.labels)) for c in found] == [
        ("endpoint_drift", {"endpoint": "main", "model": "small", "space": space})
        for space in ("small@1/4/unit", "small@1/8/unit")
    ]
    elsewhere = msgspec.structs.replace(MAIN, base_url="http://elsewhere")
    assert endpoint_conditions(known, [elsewhere], {}, 5) == []
    known.apply("_system", msgspec.structs.replace(told, passed=True))
    assert len(endpoint_conditions(known, [MAIN], {}, 5)) == 1
