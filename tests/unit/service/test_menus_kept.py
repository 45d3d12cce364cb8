"""The menus that are kept: made anew for a tenant by what changes of its own, or of the catalogue, and by nothing that others do."""

from __future__ import annotations

from itertools import count
from typing import Any

import pytest

from domain.events import AgentRegistered, Preferences, QuotaRemoved, QuotaSet
from domain.plane import ControlPlane
from gateway.service.selector import Selector
from tests.support.menus import catalogue, model

TENANTS = ("acme", "other", "plain")
_positions = count(1)


@pytest.fixture
def plane() -> ControlPlane:
    return ControlPlane()


@pytest.fixture
def selector(plane: ControlPlane) -> Selector:
    models = catalogue([model("a"), model("b")])
    return Selector(plane, lambda: models, clock=lambda: 0.0)


def change(plane: ControlPlane, tenant: str, data: Any) -> None:
    plane.quotas.apply(tenant, data, next(_positions))


def budget(limit: int) -> QuotaSet:
    return QuotaSet(scope="tenant", unit="nano_usd", window="month", limit=limit)


def test_what_a_tenant_does_with_its_quotas_takes_nobody_elses_menu_away(
    plane: ControlPlane, selector: Selector
) -> None:
    change(plane, "acme", budget(7))
    before = {tenant: selector.kept(tenant) for tenant in TENANTS}
    for limit in range(1, 4):
        change(plane, "other", budget(limit))
        change(plane, "other", AgentRegistered(agent="a", preferences=Preferences(monthly_budget_nano_usd=limit)))
        assert selector.kept("acme") is before["acme"]
        assert selector.kept("plain") is before["plain"]
    assert selector.kept("other") is not before["other"]


def test_a_budget_of_its_own_is_in_its_next_menu_and_out_of_the_one_after_its_end(
    plane: ControlPlane, selector: Selector
) -> None:
    def bound() -> frozenset[str]:
        return selector.kept("acme").bound

    shared = selector.menu("plain")
    assert selector.menu("acme") is shared
    change(plane, "acme", QuotaSet(scope="agent", subject="x", unit="nano_usd", window="day", limit=1))
    assert bound() == {"x"}
    change(plane, "acme", AgentRegistered(agent="y", preferences=Preferences(monthly_budget_nano_usd=5)))
    assert bound() == {"x", "y"}
    change(plane, "acme", AgentRegistered(agent="y", preferences=Preferences()))
    change(plane, "acme", QuotaRemoved(scope="agent", subject="x", unit="nano_usd", window="day"))
    assert bound() == frozenset()
    assert selector.menu("acme") is shared, "tenants without anything of their own share one"
