"""Quotas as decisions: what is refused and why, what changes nothing, what is in force."""

from __future__ import annotations

from typing import Any

import pytest

from domain.errors import GatewayError
from domain.events import (
    AgentRegistered,
    EventData,
    ModelRegistered,
    ModelSpec,
    Preferences,
    QuotaRemoved,
    QuotaSet,
    TenantCreated,
    TenantShredded,
)
from domain.plane import ControlPlane
from domain.quotas import MAX_LIMIT, OWN, QuotaKey, decide_remove_quota, decide_set_quota

SPEC = ModelSpec(version="1", dimensions=8, max_tokens=10, unit=True, rank=1, aliases=["small"])


class Plane(ControlPlane):
    """Folds what it is told, at the next position."""

    def tell(self, *events: EventData, tenant: str = "acme") -> None:
        for data in events:
            self.apply(self.position + 1, tenant, "s", None, data)


@pytest.fixture
def plane() -> Plane:
    made = Plane()
    made.tell(
        TenantCreated("acme"),
        AgentRegistered(agent="bot", preferences=Preferences()),
        ModelRegistered(model="m", spec=SPEC, offerings=[], state="available", origin="operator"),
    )
    return made


WANTED: dict[str, Any] = {"scope": "tenant", "unit": "tokens", "window": "day", "limit": 10}


def test_a_quota_is_set_changed_and_removed(plane: Plane) -> None:
    [decision] = decide_set_quota(plane, "acme", **WANTED, actor="key:k")
    assert decision.stream == "tenant/acme"
    assert decision.data == QuotaSet(scope="tenant", unit="tokens", window="day", limit=10, actor="key:k")
    plane.tell(decision.data)
    assert decide_set_quota(plane, "acme", **WANTED) == [], "it is so already"
    [softer] = decide_set_quota(plane, "acme", **WANTED, hard=False)
    plane.tell(softer.data)
    [found] = plane.quotas.of("acme").values()
    assert (found.limit, found.hard, found.position) == (10, False, plane.position)
    key = {name: WANTED[name] for name in ("scope", "unit", "window")}
    [removed] = decide_remove_quota(plane, "acme", **key)
    plane.tell(removed.data)
    assert plane.quotas.of("acme") == {}
    assert decide_remove_quota(plane, "acme", **key) == []


def test_since_when_a_quota_holds_without_a_gap_is_known(plane: Plane) -> None:
    def told(limit: int | None, *, hard: bool = True) -> int:
        plane.tell(
            QuotaRemoved(scope="tenant", unit="tokens", window="day")
            if limit is None
            else QuotaSet(scope="tenant", unit="tokens", window="day", limit=limit, hard=hard)
        )
        return next((quota.since for quota in plane.quotas.of("acme").values()), 0)

    first = told(10, hard=False)
    assert first == plane.position
    assert told(20, hard=False) == first
    assert (turned := told(20)) == plane.position, "what gateways said of a soft one may be a second old"
    assert told(5) == told(7, hard=False) == turned
    told(None)
    assert told(10) == plane.position


@pytest.mark.parametrize(
    "limit", [-1, MAX_LIMIT + 1, 2**63, 1.5, float("nan"), float("inf"), True, "10", None], ids=repr
)
def test_a_limit_that_is_no_whole_number_within_bounds_is_refused(plane: Plane, limit: Any) -> None:
    with pytest.raises(GatewayError) as refused:
        decide_set_quota(plane, "acme", **{**WANTED, "limit": limit})
    assert refused.value.code == "invalid_config"
    assert refused.value.details is not None
    assert refused.value.details["field"] == "limit"


@pytest.mark.parametrize("limit", [0, 1, MAX_LIMIT])
def test_limits_at_their_bounds_are_taken(plane: Plane, limit: int) -> None:
    assert len(decide_set_quota(plane, "acme", **{**WANTED, "limit": limit})) == 1


@pytest.mark.parametrize(
    ("wrong", "field"),
    [
        ({"scope": "key"}, "scope"),
        ({"scope": OWN, "subject": "bot"}, "scope"),
        ({"unit": "dollars"}, "unit"),
        ({"window": "hour"}, "window"),
        ({"scope": "model"}, "subject"),
        ({"scope": "agent", "subject": ""}, "subject"),
        ({"subject": "bot"}, "subject"),
        ({"scope": "model", "subject": "nothing"}, "subject"),
        ({"scope": "agent", "subject": "nobody"}, "subject"),
    ],
    ids=str,
)
def test_what_is_wrong_is_named(plane: Plane, wrong: dict[str, Any], field: str) -> None:
    with pytest.raises(GatewayError) as refused:
        decide_set_quota(plane, "acme", **{**WANTED, **wrong})
    assert refused.value.code == "invalid_config"
    assert refused.value.details is not None
    assert [f["field"] for f in refused.value.details["fields"]] == [field]


def test_everything_that_is_wrong_is_named_at_once(plane: Plane) -> None:
    with pytest.raises(GatewayError) as refused:
        decide_set_quota(plane, "acme", scope="x", unit="y", window="z", limit=-1)
    assert refused.value.details is not None
    assert {f["field"] for f in refused.value.details["fields"]} == {"scope", "unit", "window", "limit"}


@pytest.mark.parametrize("tenant", ["nobody", "gone"])
def test_a_tenant_that_is_unknown_or_shredded_has_no_quotas(plane: Plane, tenant: str) -> None:
    plane.tell(TenantCreated("gone"), TenantShredded("gone"), tenant="gone")
    with pytest.raises(GatewayError, match="there is no tenant"):
        decide_set_quota(plane, tenant, **WANTED)
    with pytest.raises(GatewayError, match="there is no tenant"):
        decide_remove_quota(plane, tenant, scope="tenant", unit="tokens", window="day")


def test_a_model_may_be_called_by_its_alias(plane: Plane) -> None:
    [decision] = decide_set_quota(plane, "acme", **{**WANTED, "scope": "model", "subject": "small"})
    assert isinstance(decision.data, QuotaSet)
    assert decision.data.subject == "m"
    plane.tell(decision.data)
    [removed] = decide_remove_quota(plane, "acme", scope="model", unit="tokens", window="day", subject="small")
    assert isinstance(removed.data, QuotaRemoved)
    assert removed.data.subject == "m"


def test_the_budget_that_an_agent_states_stands_beside_the_one_that_was_set(plane: Plane) -> None:
    plane.tell(QuotaSet(scope="agent", subject="bot", unit="nano_usd", window="month", limit=50))
    plane.tell(AgentRegistered(agent="bot", preferences=Preferences(monthly_budget_nano_usd=70)))
    binding = dict(plane.quotas.binding("acme", "bot", "m"))
    own = QuotaKey(OWN, "bot", "nano_usd", "month")
    assert {key: quota.limit for key, quota in binding.items()} == {
        QuotaKey("agent", "bot", "nano_usd", "month"): 50, own: 70,
    }  # fmt: skip
    since, version = binding[own].position, plane.quotas.version
    plane.tell(AgentRegistered(agent="bot", preferences=Preferences(monthly_budget_nano_usd=70, strategy="cost")))
    assert plane.quotas.version == version, "the same budget said again is no change"
    assert plane.quotas.of("acme")[own].position == since
    plane.tell(AgentRegistered(agent="bot", preferences=Preferences()))
    assert own not in plane.quotas.of("acme")


def test_a_request_draws_on_its_tenant_s_its_model_s_and_its_agent_s_quotas_and_no_others(plane: Plane) -> None:
    for scope, subject in (("tenant", None), ("model", "m"), ("model", "other"), ("agent", "bot"), ("agent", "other")):
        plane.tell(QuotaSet(scope=scope, subject=subject, unit="tokens", window="day", limit=1))
    plane.tell(QuotaSet(scope="tenant", unit="tokens", window="day", limit=1), tenant="another")
    found = {(key.scope, key.subject) for key, _ in plane.quotas.binding("acme", "bot", "m")}
    assert found == {("tenant", ""), ("model", "m"), ("agent", "bot")}
