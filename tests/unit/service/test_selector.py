"""Menus in a running gateway: kept while nothing changes, made anew when anything that they rest on does."""

from __future__ import annotations

import pytest

from domain.catalogue import Catalogue
from domain.decision import Decision
from domain.errors import GatewayError
from domain.events import (
    AgentRegistered,
    EventData,
    Preferences,
    PriceSet,
    QuotaSet,
    TenantConfigured,
    TenantModelConfigured,
)
from domain.plane import ControlPlane
from domain.ports.provider import ProviderFault
from domain.selection import Question
from gateway.dispatch.context import CallOutcome
from gateway.service import selector as module
from gateway.service.selector import KEEP_SECONDS, MEASURE_SECONDS, Selector
from gateway.telemetry import metrics
from gateway.telemetry.metrics import ProviderMetrics
from tests.support.menus import catalogue, model
from tests.support.planes import fold, plane_of


class Live:
    """What quotas would say."""

    def __init__(self) -> None:
        self.over = False
        self.asked: list[tuple[str, int, int | None]] = []

    def refusal(self, tenant: str, agent: str, name: str, tokens: int, nano_usd: int | None) -> GatewayError | None:
        self.asked.append((name, tokens, nano_usd))
        return None

    def over_soft_budget(self, tenant: str) -> bool:
        return self.over


class World:
    """A selector on a plane, with a clock of its own: time 1000."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.plane: ControlPlane = plane_of(tenants=("acme", "other"))
        self.catalogue: Catalogue = catalogue([model("a"), model("b")])
        self.latencies: dict[str, int] = {}
        self.live = Live()
        for name, pico in (("a", 5000), ("b", 9000)):
            self.given("_system", "prices", PriceSet(f"l-{name}", name, "p", effective_from=0, unit_pico_usd=pico))
        self.selector = Selector(
            self.plane,
            lambda: self.catalogue,
            live=self.live,
            latency_ms=lambda: self.latencies.copy(),
            clock=lambda: self.now,
        )

    def given(self, tenant: str, stream: str, data: EventData) -> None:
        fold(self.plane, [Decision(tenant, stream, data)])

    def chosen(self, agent: str = "x", tenant: str = "acme", **asked: object) -> str:
        return self.selector.choose(tenant, agent, Question(**asked)).model.id  # type: ignore[arg-type]


@pytest.fixture
def world() -> World:
    return World()


def test_a_menu_is_kept_while_nothing_changes_and_shared_by_tenants_without_anything_of_their_own(world: World) -> None:
    kept = world.selector.menu("acme")
    assert world.selector.menu("acme") is kept
    assert world.selector.menu("other") is kept
    world.given("acme", "tenant/acme", TenantModelConfigured("b"))
    assert world.selector.menu("acme") is not kept
    assert world.selector.menu("other") is kept


def test_every_change_is_in_force_with_the_next_choice(world: World) -> None:
    assert world.chosen() == "a"
    world.given("acme", "tenant/acme", TenantModelConfigured("b", default=True))
    assert world.chosen() == "b"
    world.given("acme", "tenant/acme", TenantModelConfigured("a", default=True))
    assert world.chosen() == "a"
    world.catalogue = catalogue([model("a", state="deprecated"), model("b")])
    assert world.chosen(optimize="cost") == "b"
    world.given("acme", "agent/acme/x", AgentRegistered("x", Preferences(models=["b"])))
    assert world.chosen() == "b"
    assert world.chosen(agent="y") == "a"
    world.given("acme", "tenant/acme", TenantConfigured(require_known_prices=True))
    assert world.chosen() == "b"


def test_a_price_is_in_force_when_it_begins_and_when_it_ends(world: World) -> None:
    world.given(
        "_system",
        "prices",
        PriceSet("cheap", "b", "p", effective_from=1100, effective_until=1200, unit_pico_usd=1, for_tenant="acme"),
    )
    seen = []
    for world.now in (1000.0, 1099.0, 1100.0, 1199.0, 1200.0):
        seen.append(world.chosen(optimize="cost"))
    assert seen == ["a", "a", "b", "b", "a"]
    assert world.chosen(tenant="other", optimize="cost") == "a"


def test_no_menu_is_older_than_five_minutes(world: World) -> None:
    kept = world.selector.menu("acme")
    world.now += KEEP_SECONDS - 1
    assert world.selector.menu("acme") is kept
    world.now += 1
    assert world.selector.menu("acme") is not kept


def test_a_hard_budget_leaves_no_model_of_unknown_price(world: World) -> None:
    world.catalogue = catalogue([model("a"), model("c")])
    world.given("acme", "agent/acme/x", AgentRegistered("x", Preferences(models=["c"])))
    world.given("acme", "agent/acme/y", AgentRegistered("y", Preferences(models=["c"], monthly_budget_nano_usd=5)))
    assert (world.chosen("x"), world.chosen("y")) == ("c", "a")
    world.given("acme", "tenant/acme", QuotaSet("tenant", "nano_usd", "month", 100))
    assert world.chosen("x") == "a"
    assert world.chosen("x", tenant="other", model="c") == "c"


def test_measured_latencies_are_looked_at_twice_a_minute(world: World) -> None:
    assert world.chosen(optimize="latency") == "a"
    world.latencies = {"a": 100, "b": 10}
    assert world.chosen(optimize="latency") == "a"
    world.now += MEASURE_SECONDS
    assert world.chosen(optimize="latency") == "b"
    kept = world.selector.menu("acme")
    world.now += MEASURE_SECONDS
    assert world.selector.menu("acme") is kept


def test_quotas_are_asked_about_a_candidate_only_once_something_was_refused(world: World) -> None:
    world.chosen()
    assert world.live.asked == []
    refused = {"a": GatewayError("quota_exceeded", "used up")}
    question = Question(another=True, tokens=7, characters=30)
    assert world.selector.choose("acme", "x", question, refused).model.id == "b"
    assert world.live.asked == [("b", 7, 63)]


def test_a_soft_budget_that_is_used_up_is_looked_at_with_every_choice(world: World) -> None:
    world.given("acme", "tenant/acme", TenantModelConfigured("a"))
    world.given("acme", "tenant/acme", TenantModelConfigured("b", default=True))
    seen = []
    for world.live.over in (False, True, False):
        seen.append(world.chosen(another=True))
    assert seen == ["b", "a", "b"]


def test_menus_are_bounded(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_MENUS", 3)
    for number in range(10):
        world.selector.menu(f"t{number}")
        assert len(world.selector._menus) <= 3


@pytest.mark.parametrize(
    ("mode", "asked", "named", "allowed"),
    [
        ("same_space", None, True, False),
        ("same_space", "any", True, True),
        ("any", None, True, True),
        ("any", "same_space", True, False),
        ("same_space", None, False, True),
        ("same_space", "none", False, False),
        ("none", None, False, False),
        ("none", "same_space", False, True),
    ],
)
def test_another_model_may_answer_as_the_request_or_else_its_tenant_says(
    world: World, mode: str, asked: str | None, named: bool, allowed: bool
) -> None:
    world.given("acme", "tenant/acme", TenantConfigured(failover=mode))
    assert world.selector.another("acme", "a" if named else None, asked) is allowed


def test_recent_latency_follows_good_calls_and_is_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 0.0
    monkeypatch.setattr("gateway.telemetry.metrics.time.monotonic", lambda: now)
    measured = ProviderMetrics()

    def call(seconds: float, owner: str | None = None) -> None:
        measured.call_ended(CallOutcome("e", "p", "m", 1, 1, seconds, 1, owner=owner))

    call(0.1)
    assert measured.latency_ms() == {"m": 100}
    call(0.2)
    assert measured.latency_ms() == {"m": 110}
    call(60.0, "acme")
    assert measured.latency_ms() == {"m": 110}, "no tenant makes a model slow for others"
    now = metrics.RECENT_SECONDS + 1
    assert measured.latency_ms() == {}


def test_endpoints_that_tenants_deploy_by_ever_new_names_fill_no_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(metrics, "KEEP_OWNED", 3)
    measured = ProviderMetrics()
    for n, fault in ((n, fault) for n in range(10) for fault in (None, ProviderFault.SERVER)):
        measured.call_ended(CallOutcome(f"acme:{n}", "p", "m", 1, 1, 0.1, 1, fault=fault, owner="acme"))
        measured.call_ended(CallOutcome(f"shared{n}", "p", "m", 1, 1, 0.1, 1, fault=fault))
    for family in measured.collect():
        seen = {sample.labels["endpoint"] for sample in family.samples}
        assert seen == {"acme:7", "acme:8", "acme:9"} | {f"shared{n}" for n in range(10)}
