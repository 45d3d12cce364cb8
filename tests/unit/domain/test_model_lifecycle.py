"""The lifecycle of models: what leads where, held against the edges as the design draws them, by a machine that tries everything."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from domain.decision import Decision
from domain.errors import GatewayError
from domain.events import ModelSpec, ModelValidated, OfferingSpec, TenantModelConfigured, TenantModelRemoved
from domain.model_catalog import CatalogModel, deprecated, usable
from domain.model_decisions import (
    DAY_SECONDS,
    Step,
    decide_change,
    decide_end_grace,
    decide_register,
    decide_validated,
    grace_ended,
)
from domain.model_lifecycle import EDGES, STATES
from domain.plane import ControlPlane

DRAWN = {
    ("draft", "enable for testing"): "testing",
    ("testing", "validation passed"): "available",
    ("testing", "validation failed"): "draft",
    ("testing", "adjust settings"): "testing",
    ("available", "update config"): "available",
    ("available", "provider issue"): "unavailable",
    ("unavailable", "issue resolved"): "available",
    ("available", "mark deprecated"): "deprecated",
    ("unavailable", "mark deprecated"): "deprecated",
    ("deprecated", "grace period ended"): "removed",
    ("draft", "remove"): "removed",
    ("testing", "remove"): "removed",
    # Settled beside the drawing: a deprecated model can be down, and come back; a draft is there to be changed.
    ("deprecated", "provider issue"): "deprecated",
    ("deprecated", "issue resolved"): "deprecated",
    ("draft", "adjust settings"): "draft",
}
"""(state, edge) -> state, by the names of the drawing."""
HOLDS = {
    ("testing", "enable for testing"),
    ("available", "issue resolved"),
    ("unavailable", "provider issue"),
    ("deprecated", "mark deprecated"),
    ("removed", "remove"),
}
"""What is asked for and is so already: nothing happens."""

SPEC = ModelSpec(version="1", dimensions=8, max_tokens=100)
OFFERING = OfferingSpec("openai", "m-1", max_inputs=10, max_tokens_per_call=1000)
NAMES = {
    "enable for testing": "test",
    "provider issue": "unavailable",
    "issue resolved": "available",
    "mark deprecated": "deprecate",
    "remove": "remove",
}


def fold(plane: ControlPlane, decisions: list[Decision]) -> None:
    for decision in decisions:
        version = plane.versions.get(decision.stream, 0) + 1
        plane.apply(plane.position + 1, decision.tenant, decision.stream, version, decision.data)


def registered(model: str = "m", spec: ModelSpec = SPEC) -> ControlPlane:
    plane = ControlPlane()
    fold(plane, decide_register(plane, model, spec, [OFFERING], actor="key:k"))
    return plane


class Lifecycle(RuleBasedStateMachine):
    """One model, a clock, tenants that add and drop it; beside it a table of plain values."""

    @initialize()
    def start(self) -> None:
        self.plane = registered()
        self.now = 1_000_000.0
        self.state = "draft"
        self.down = False
        self.ends = 0.0
        self.tenants: set[str] = set()
        self.facts = 0

    def model(self) -> CatalogModel:
        return self.plane.models.models["m"]

    def attempt(self, expected: bool, decide: Callable[[], list[Decision]]) -> bool:
        before = self.model()
        if expected:
            fold(self.plane, decide())
            return True
        with pytest.raises(GatewayError) as refused:
            decide()
        error = refused.value
        assert (error.code, error.status) == ("resource_constraint", 409)
        assert error.details is not None
        assert error.details["state"] == self.state
        assert self.model() == before
        return False

    def step(self, edge: str, grace: int | None = None) -> None:
        holds = (self.state, edge) in HOLDS and grace is None
        if self.state == "deprecated" and edge in ("provider issue", "issue resolved"):
            holds = self.down == (edge == "provider issue")
        possible = holds or (self.state, edge) in DRAWN
        if self.state == "deprecated" and edge == "remove":
            possible = self.now >= self.ends and not self.tenants
        if self.state in ("draft", "testing") and edge == "remove":
            possible = not self.tenants
        decide = lambda: decide_change(  # noqa: E731
            self.plane, "m", {}, [Step(NAMES[edge], grace_days=grace)], now=self.now, actor="key:k"
        )
        if self.attempt(possible, decide) and not holds:
            if edge == "mark deprecated":
                self.down = self.state == "unavailable"
                self.ends = int(self.now) + (90 if grace is None else grace) * DAY_SECONDS
            elif edge in ("provider issue", "issue resolved"):
                self.down = edge == "provider issue"
            self.state = "removed" if edge == "remove" else DRAWN[self.state, edge]

    @rule(edge=st.sampled_from(["enable for testing", "provider issue", "issue resolved", "remove"]))
    def operate(self, edge: str) -> None:
        self.step(edge)

    @rule(grace=st.sampled_from([None, 0, 1, 90]))
    def deprecate(self, grace: int | None) -> None:
        self.step("mark deprecated", grace)

    @rule(passed=st.booleans())
    def validate(self, passed: bool) -> None:
        edge = "validation passed" if passed else "validation failed"
        data = ModelValidated(model="m", endpoint="e", passed=passed, at=1)
        if self.attempt((self.state, edge) in DRAWN, lambda: decide_validated(self.plane, data)):
            self.state = DRAWN[self.state, edge]
            assert self.model().validated == data

    @rule()
    def change(self) -> None:
        self.facts += 1
        edge = "adjust settings" if self.state in ("draft", "testing") else "update config"
        facts = {"rank": 1000 + self.facts}
        possible = (self.state, edge) in DRAWN
        decide = lambda: decide_change(self.plane, "m", facts, now=self.now, actor="key:k")  # noqa: E731
        if self.attempt(possible, decide):
            assert self.model().spec.rank == 1000 + self.facts

    @rule(tenant=st.sampled_from(["acme", "other"]), adds=st.booleans())
    def configure(self, tenant: str, adds: bool) -> None:
        data: Any = TenantModelConfigured(model="m") if adds else TenantModelRemoved(model="m")
        fold(self.plane, [Decision(tenant, f"tenant/{tenant}", data)])
        (self.tenants.add if adds else self.tenants.discard)(tenant)

    @rule(days=st.integers(0, 60))
    def time_passes(self, days: int) -> None:
        self.now += days * DAY_SECONDS

    @rule()
    def the_timer_runs(self) -> None:
        due = self.state == "deprecated" and self.now >= self.ends
        assert grace_ended(self.plane, self.now) == (["m"] if due else [])
        fold(self.plane, decide_end_grace(self.plane, "m", now=self.now, actor="maintenance"))
        if due:
            self.state = "removed"

    @invariant()
    def it_stands_where_the_table_says(self) -> None:
        model = self.model()
        assert model.state == self.state
        assert deprecated(model) == (self.state == "deprecated")
        for_all = self.state == "available" or (self.state == "deprecated" and not self.down)
        assert usable(model, admin=False) == for_all
        assert usable(model, admin=True) == (for_all or self.state == "testing")


TestLifecycle = Lifecycle.TestCase
TestLifecycle.settings = settings(max_examples=60, stateful_step_count=25, deadline=None)


def test_the_table_of_edges_is_the_drawing() -> None:
    names = {
        **NAMES,
        "validation passed": "pass",
        "validation failed": "fail",
        "adjust settings": "update",
        "update config": "update",
        "grace period ended": "remove",
    }
    assert {(state, names[edge]): target for (state, edge), target in DRAWN.items()} == EDGES
    assert {state for state, _ in EDGES} | set(EDGES.values()) == set(STATES)


def test_a_machine_with_an_edge_too_many_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(EDGES, ("removed", "test"), "testing")
    machine = Lifecycle()
    machine.start()
    machine.operate("remove")
    with pytest.raises(pytest.fail.Exception, match="DID NOT RAISE"):
        machine.operate("enable for testing")


def test_a_refused_step_says_where_the_model_stands_and_what_it_can_do() -> None:
    plane = registered()
    with pytest.raises(
        GatewayError, match="model 'm' is draft: that takes no 'deprecate'; what it takes is test, update"
    ) as caught:
        decide_change(plane, "m", {}, [Step("deprecate")], now=0, actor="key:k")
    assert caught.value.details == {"field": "state", "state": "draft", "allowed": ["test", "update", "remove"]}


@pytest.mark.parametrize("days", [-1, 3651, 10**30])
def test_a_grace_period_is_within_reason(days: int) -> None:
    plane = registered()
    fold(plane, decide_change(plane, "m", {}, [Step("test")], now=0, actor="key:k"))
    fold(plane, decide_validated(plane, ModelValidated(model="m", endpoint="e", passed=True, at=1)))
    with pytest.raises(GatewayError, match=r"grace_days: .* expected 0 to 3650"):
        decide_change(plane, "m", {}, [Step("deprecate", grace_days=days)], now=0, actor="key:k")
