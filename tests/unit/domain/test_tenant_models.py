"""What a tenant may do with its models, and what is refused."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from domain.decision import Decision
from domain.errors import GatewayError
from domain.events import (
    ModelStateChanged,
    PriceSet,
    QuotaRemoved,
    QuotaSet,
    TenantConfigured,
    TenantModelConfigured,
    TenantModelRemoved,
)
from domain.plane import ControlPlane
from domain.tenant_models import (
    MAX_PRIORITY,
    decide_default_model,
    decide_remove_tenant_model,
    decide_tenant_model,
    limit_of,
    tenant_model,
)
from tests.support.planes import NOW, fold, plane_of, registered

ACTOR = "key:1"


@pytest.fixture
def plane() -> ControlPlane:
    return plane_of(registered("a", aliases=["first"]), registered("b"), registered("c"), registered("d"))


def decide(plane: ControlPlane, name: str, operator: bool = False, now: float = NOW, **wanted: Any) -> list[Decision]:
    return decide_tenant_model(plane, "acme", name, wanted, operator=operator, now=now, actor=ACTOR)


def attempt(decide_what: Callable[[], list[Decision]]) -> list[Decision] | GatewayError:
    try:
        return decide_what()
    except GatewayError as error:
        return error


def configure(plane: ControlPlane, name: str, operator: bool = False, **wanted: Any) -> None:
    fold(plane, decide(plane, name, operator, **wanted))


def refused(plane: ControlPlane, name: str, **wanted: Any) -> GatewayError:
    before = plane.position
    with pytest.raises(GatewayError) as caught:
        decide(plane, name, **wanted)
    assert plane.position == before
    return caught.value


def fields(error: GatewayError) -> list[str]:
    assert error.code == "invalid_config"
    assert error.details is not None
    return [found["field"] for found in error.details["fields"]]


# -- configuring -------------------------------------------------------------------------------------------------------


def test_a_model_is_added_enabled_or_only_configured(plane: ControlPlane) -> None:
    configure(plane, "a")
    configure(plane, "b", is_enabled=False, priority=7, custom_settings={"team": "search"})
    assert tenant_model(plane, "acme", "a").state == "enabled"
    found = tenant_model(plane, "acme", "b")
    assert (found.state, found.priority, found.custom_settings, found.actor) == (
        "configured",
        7,
        {"team": "search"},
        ACTOR,
    )


def test_one_append_configures_and_switches_the_default(plane: ControlPlane) -> None:
    configure(plane, "a", is_default=True)
    [decision] = decide(plane, "b", is_default=True)
    assert decision == Decision("acme", "tenant/acme", TenantModelConfigured("b", default=True, actor=ACTOR))
    fold(plane, [decision])
    config = plane.tenants.of("acme")
    assert (config.default, config.models["a"].default, config.models["a"].state) == ("b", False, "enabled")


def test_configuring_twice_changes_what_is_said_and_leaves_the_rest(plane: ControlPlane) -> None:
    configure(plane, "a", priority=5, fallback_models=["b"])
    configure(plane, "first", custom_settings={"x": "y"})
    found = tenant_model(plane, "acme", "a")
    assert (found.priority, found.fallback_models, found.custom_settings) == (5, ["b"], {"x": "y"})
    assert decide(plane, "a", priority=5) == []


def test_states_follow_what_is_enabled_and_disabled(plane: ControlPlane) -> None:
    states = []
    for wanted in (
        {"is_enabled": False},
        {"is_enabled": False, "priority": 1},
        {"is_enabled": True},
        {"is_enabled": False},
        {"priority": 2},
        {"is_enabled": True},
    ):
        configure(plane, "a", **wanted)
        states.append(tenant_model(plane, "acme", "a").state)
    assert states == ["configured", "configured", "enabled", "disabled", "disabled", "enabled"]


def test_limits_are_set_before_the_model_is_in_use(plane: ControlPlane) -> None:
    decisions = decide(plane, "a", monthly_token_limit=1000, daily_token_limit=100, monthly_request_limit=9)
    assert [d.data for d in decisions] == [
        QuotaSet("model", "tokens", "month", 1000, subject="a", actor=ACTOR),
        QuotaSet("model", "tokens", "day", 100, subject="a", actor=ACTOR),
        QuotaSet("model", "requests", "month", 9, subject="a", actor=ACTOR),
        TenantModelConfigured("a", actor=ACTOR),
    ]
    fold(plane, decisions)
    assert limit_of(plane, "acme", "a", "daily_token_limit") == 100
    assert [d.data for d in decide(plane, "a", daily_token_limit=None, monthly_token_limit=1000)] == [
        QuotaRemoved("model", "tokens", "day", subject="a", actor=ACTOR)
    ]


def test_operators_set_what_the_tenant_is_charged_and_nobody_else_does(plane: ControlPlane) -> None:
    price, model = decide(plane, "a", True, custom_cost_per_token_pico_usd=20_000)
    assert isinstance(price.data, PriceSet)
    assert (price.data.for_tenant, price.data.unit, price.data.unit_pico_usd) == ("acme", "token", 20_000)
    assert isinstance(model.data, TenantModelConfigured)
    fold(plane, [price, model])
    assert plane.prices.price("a", "p", "acme", NOW + 1).unit_pico_usd == 20_000
    assert decide(plane, "a", True, custom_cost_per_token_pico_usd=20_000) == []
    fold(plane, decide(plane, "a", True, NOW + 1, custom_cost_per_character_pico_usd=5))
    assert plane.prices.price("a", "p", "acme", NOW + 2).unit == "character"
    fold(plane, decide(plane, "a", True, NOW + 3, custom_cost_per_token_pico_usd=None))
    assert plane.prices.price("a", "p", "acme", NOW + 4).unit_pico_usd is None
    error = refused(plane, "a", custom_cost_per_token_pico_usd=1)
    assert (error.code, error.details) == ("forbidden", {"field": "custom_cost_per_token_pico_usd"})


# -- refusals ----------------------------------------------------------------------------------------------------------


def test_every_wrong_field_is_named_at_once(plane: ControlPlane) -> None:
    error = refused(
        plane,
        "a",
        priority=-1,
        monthly_token_limit=-5,
        daily_token_limit=10**19,
        fallback_models=["nowhere", "a", "b", "b"],
        custom_settings={"api-key": "x", "long": "x" * 1000},
    )
    assert fields(error) == [
        "fallback_models[0]",
        "fallback_models[1]",
        "fallback_models[3]",
        "priority",
        "custom_settings",
        "custom_settings",
        "monthly_token_limit",
        "daily_token_limit",
    ]


@pytest.mark.parametrize("priority", [-1, MAX_PRIORITY + 1, 2**62])
def test_a_priority_is_from_0_to_a_million(plane: ControlPlane, priority: int) -> None:
    assert fields(refused(plane, "a", priority=priority)) == ["priority"]


@pytest.mark.parametrize("name", ["nowhere", "", "draft", "gone"])
def test_a_model_that_nobody_could_use_is_not_found(plane: ControlPlane, name: str) -> None:
    fold(
        plane,
        [
            Decision("_system", f"model/{m.model}", m)
            for m in (registered("draft", "draft"), registered("gone", "removed"))
        ],
    )
    error = refused(plane, name)
    assert (error.code, error.status) == ("model_not_found", 404)


def test_a_deprecated_model_can_be_kept_and_not_added(plane: ControlPlane) -> None:
    configure(plane, "a")
    for name in "ab":
        fold(plane, [Decision("_system", f"model/{name}", ModelStateChanged(name, "deprecated", "available"))])
    configure(plane, "a", priority=3)
    error = refused(plane, "b")
    assert (error.code, error.status) == ("resource_constraint", 409)


def test_a_model_of_another_type_serves_no_requests(plane: ControlPlane) -> None:
    fold(plane, [Decision("_system", "model/chat", registered("chat", type="chat"))])
    assert refused(plane, "chat").code == "type_unsupported"


def test_a_model_above_the_tenants_tier_can_be_configured_and_not_enabled(plane: ControlPlane) -> None:
    fold(plane, [Decision("_system", "model/top", registered("top", minimum_tier="pro"))])
    fold(plane, [Decision("acme", "tenant/acme", TenantConfigured(tier="starter"))])
    configure(plane, "top", is_enabled=False)
    assert refused(plane, "top", is_enabled=True).code == "resource_constraint"
    fold(plane, [Decision("acme", "tenant/acme", TenantConfigured(tier="pro"))])
    configure(plane, "top", is_enabled=True)


def test_the_default_is_neither_disabled_nor_removed_nor_replaced_by_none(plane: ControlPlane) -> None:
    configure(plane, "a", is_default=True)
    for wanted in ({"is_enabled": False}, {"is_default": False}, {"is_enabled": False, "is_default": False}):
        error = refused(plane, "a", **wanted)
        assert (error.code, error.status) == ("resource_constraint", 409)
    with pytest.raises(GatewayError, match="make another the default first"):
        decide_remove_tenant_model(plane, "acme", "a", actor=ACTOR)
    configure(plane, "b", is_default=True)
    fold(plane, decide_remove_tenant_model(plane, "acme", "a", actor=ACTOR))
    assert list(plane.tenants.of("acme").models) == ["b"]


def test_only_an_enabled_model_can_be_the_default(plane: ControlPlane) -> None:
    assert fields(refused(plane, "a", is_enabled=False, is_default=True)) == ["is_default"]
    configure(plane, "a", is_enabled=False)
    with pytest.raises(GatewayError) as caught:
        decide_default_model(plane, "acme", "a", actor=ACTOR)
    assert caught.value.code == "resource_constraint"
    configure(plane, "a", is_enabled=True)
    fold(plane, decide_default_model(plane, "acme", "first", actor=ACTOR))
    assert plane.tenants.of("acme").default == "a"
    assert decide_default_model(plane, "acme", "a", actor=ACTOR) == []


def test_fallbacks_that_lead_back_are_refused_however_long_the_way(plane: ControlPlane) -> None:
    configure(plane, "b", fallback_models=["c"])
    configure(plane, "c", fallback_models=["d"])
    configure(plane, "d", fallback_models=[])
    assert decide(plane, "a", fallback_models=["b", "c", "d"])
    configure(plane, "a", fallback_models=["b"])
    error = refused(plane, "d", fallback_models=["first"])
    assert fields(error) == ["fallback_models"]
    assert "d -> a -> b -> c -> d" in error.message


@pytest.mark.parametrize("what", ["default", "remove"])
def test_what_the_tenant_has_not_configured_is_not_found(plane: ControlPlane, what: str) -> None:
    decide_what = {"default": decide_default_model, "remove": decide_remove_tenant_model}[what]
    with pytest.raises(GatewayError) as caught:
        decide_what(plane, "acme", "a", actor=ACTOR)
    assert caught.value.code == "not_found"


# -- the lifecycle, against a plain account of it -----------------------------------------------------------------------

NAMES = ("a", "b", "c")


class TenantModels(RuleBasedStateMachine):
    """Whatever is asked in whatever order: the plane holds what a plain dictionary says, or refused it and holds what it held."""

    def __init__(self) -> None:
        super().__init__()
        self.plane = plane_of(*(registered(name) for name in NAMES))
        self.states: dict[str, str] = {}
        self.default: str | None = None

    def take(self, decisions: list[Decision]) -> None:
        fold(self.plane, decisions)

    @rule(name=st.sampled_from(NAMES), enabled=st.none() | st.booleans(), default=st.none() | st.booleans())
    def configure(self, name: str, enabled: bool | None, default: bool | None) -> None:
        wanted = {k: v for k, v in (("is_enabled", enabled), ("is_default", default)) if v is not None}
        was = self.states.get(name)
        on = enabled if enabled is not None else was in (None, "enabled")
        holds = self.default == name if default is None else default
        allowed = not (self.default == name and not (on and holds)) and (on or not holds)
        decisions = attempt(lambda: decide(self.plane, name, **wanted))
        if isinstance(decisions, GatewayError):
            assert not allowed
            assert decisions.code in ("resource_constraint", "invalid_config")
            return
        assert allowed
        self.take(decisions)
        self.states[name] = "enabled" if on else "configured" if was in (None, "configured") else "disabled"
        if holds:
            self.default = name

    @rule(name=st.sampled_from(NAMES))
    def make_default(self, name: str) -> None:
        decisions = attempt(lambda: decide_default_model(self.plane, "acme", name, actor=ACTOR))
        if isinstance(decisions, GatewayError):
            assert decisions.code == ("resource_constraint" if name in self.states else "not_found")
            assert self.states.get(name) != "enabled"
            return
        assert self.states[name] == "enabled"
        self.take(decisions)
        self.default = name

    @rule(name=st.sampled_from(NAMES))
    def remove(self, name: str) -> None:
        decisions = attempt(lambda: decide_remove_tenant_model(self.plane, "acme", name, actor=ACTOR))
        if isinstance(decisions, GatewayError):
            assert decisions.code == ("resource_constraint" if name in self.states else "not_found")
            assert self.default == name or name not in self.states
            return
        assert [d.data for d in decisions] == [TenantModelRemoved(name, actor=ACTOR)]
        self.take(decisions)
        del self.states[name]

    @rule(name=st.sampled_from(NAMES), others=st.lists(st.sampled_from(NAMES), unique=True, max_size=2))
    def fall_back(self, name: str, others: list[str]) -> None:
        decisions = attempt(lambda: decide(self.plane, name, fallback_models=others))
        if isinstance(decisions, GatewayError):
            assert decisions.code == "invalid_config"
            return
        self.take(decisions)
        self.states.setdefault(name, "enabled")

    @invariant()
    def the_plane_holds_what_was_done(self) -> None:
        config = self.plane.tenants.of("acme")
        assert {name: m.state for name, m in config.models.items()} == self.states
        assert config.default == self.default
        assert [name for name, m in config.models.items() if m.default] == [d for d in (self.default,) if d]

    @invariant()
    def the_default_is_enabled_and_no_fallback_leads_back(self) -> None:
        models = self.plane.tenants.of("acme").models
        assert self.default is None or models[self.default].state == "enabled"
        for name in models:
            reached, ways = set(), list(models[name].fallback_models)
            while ways:
                step = ways.pop()
                if step not in reached:
                    reached.add(step)
                    ways += models[step].fallback_models if step in models else []
            assert name not in reached


TestTenantModels = TenantModels.TestCase
TestTenantModels.settings = settings(max_examples=40, stateful_step_count=20, deadline=None)


def test_the_account_of_the_lifecycle_finds_a_default_that_was_removed() -> None:
    """The negative control of the state machine: a fold that forgets the rule is caught by its invariants."""
    machine = TenantModels()
    machine.configure("a", None, True)
    machine.take([Decision("acme", "tenant/acme", TenantModelRemoved("a"))])
    with pytest.raises(AssertionError):
        machine.the_plane_holds_what_was_done()
