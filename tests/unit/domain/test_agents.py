"""What an agent may state, how many there may be, and what is refused."""

from __future__ import annotations

from typing import Any

import pytest

import domain.agents as agents
from domain.agents import decide_agent, decide_changed_agent, decide_new_agent
from domain.errors import GatewayError
from domain.events import AgentRegistered, Preferences
from domain.menu import PassedOver, compile_menu
from domain.plane import ControlPlane
from domain.selection import Question, select
from tests.support.menus import catalogue, config, model
from tests.support.planes import fold, plane_of, registered


@pytest.fixture
def plane() -> ControlPlane:
    return plane_of(
        registered("a", aliases=["first"]), registered("b"), registered("draft", "draft"), tenants=("acme", "other")
    )


def statement(agent: str = "scout", metadata: str | None = None, **preferences: Any) -> AgentRegistered:
    return AgentRegistered(agent, Preferences(**preferences), metadata=metadata, actor="key:1")


def refused(plane: ControlPlane, data: AgentRegistered) -> GatewayError:
    with pytest.raises(GatewayError) as caught:
        decide_agent(plane, "acme", data, known_models=True)
    return caught.value


def test_what_is_said_again_is_nothing_new(plane: ControlPlane) -> None:
    fold(plane, decide_agent(plane, "acme", statement(models=["first", "b"])))
    assert decide_agent(plane, "acme", statement(models=["first", "b"])) == []
    assert len(decide_agent(plane, "acme", statement(models=["b"]))) == 1


def test_every_wrong_field_is_named_at_once(plane: ControlPlane) -> None:
    error = refused(
        plane,
        statement(
            strategy="cheapest",
            models=["a", "nowhere", "draft"],
            task_models={"search": "nothing"},
            required_dimensions=0,
            max_cost_per_request_nano_usd=-1,
            monthly_budget_nano_usd=2**63,
            max_latency_ms=-5,
        ),
    )
    assert error.code == "invalid_config"
    assert error.details is not None
    assert [found["field"] for found in error.details["fields"]] == [
        "preferences.strategy",
        "preferences.required_dimensions",
        "preferences.max_cost_per_request_nano_usd",
        "preferences.monthly_budget_nano_usd",
        "preferences.max_latency_ms",
        "preferences.models[1]",
        "preferences.models[2]",
        "preferences.task_models.search",
    ]


def test_an_agent_itself_may_name_what_the_catalogue_does_not_have(plane: ControlPlane) -> None:
    fold(plane, decide_agent(plane, "acme", statement(models=["nowhere", "b"], task_models={"code": "draft"})))
    found = select(
        compile_menu(catalogue([model("b")]), config()), Question(), plane.directory.preferences("acme", "scout")
    )
    assert (found.model.id, found.passed_over) == ("b", (PassedOver("nowhere", "not in the catalogue"),))


@pytest.mark.parametrize(
    ("data", "field"),
    [
        (AgentRegistered("", Preferences()), "agent_id"),
        (AgentRegistered("x" * 129, Preferences()), "agent_id"),
        (AgentRegistered("x", Preferences(), name="n" * 129), "name"),
        (AgentRegistered("x", Preferences(), version="n" * 129), "agent_version"),
        (AgentRegistered("x", Preferences(), capabilities=["c"] * 101), "capabilities"),
        (AgentRegistered("x", Preferences(models=["a"] * 51)), "preferences.models"),
        (AgentRegistered("x", Preferences(task_models={str(n): "a" for n in range(201)})), "preferences.task_models"),
        (AgentRegistered("x", Preferences(strategy="fixed")), "preferences.models"),
        (AgentRegistered("x", Preferences(models=["m" * 129])), "preferences"),
        (AgentRegistered("x", Preferences(task_models={"": "a"})), "preferences"),
    ],
)
def test_a_statement_has_bounds(plane: ControlPlane, data: AgentRegistered, field: str) -> None:
    error = refused(plane, data)
    assert error.details is not None
    assert error.details["field"] == field


def test_a_tenant_has_a_limited_number_of_agents_and_known_ones_go_on(
    plane: ControlPlane, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(agents, "MAX_AGENTS", 2)
    for name in ("one", "two", "two"):
        fold(plane, decide_agent(plane, "acme", statement(name)))
    assert refused(plane, statement("three")).code == "resource_constraint"
    assert decide_agent(plane, "acme", statement("one", models=["a"]))
    assert decide_agent(plane, "other", statement("three"))
    assert len(plane.directory.agents_of["acme"]) == 2


def test_an_agent_is_made_once_and_made_again_only_the_same(plane: ControlPlane) -> None:
    fold(plane, decide_new_agent(plane, "acme", statement(metadata="sealed", models=["a"])))
    assert decide_new_agent(plane, "acme", statement(models=["a"])) == []
    with pytest.raises(GatewayError) as caught:
        decide_new_agent(plane, "acme", statement(models=["b"]))
    assert (caught.value.code, caught.value.status) == ("version_conflict", 409)


def test_changing_an_agent_keeps_the_metadata_that_it_states_itself(plane: ControlPlane) -> None:
    with pytest.raises(GatewayError, match="there is no agent 'scout'"):
        decide_changed_agent(plane, "acme", statement())
    fold(plane, decide_agent(plane, "acme", statement(metadata="sealed")))
    [decision] = decide_changed_agent(plane, "acme", statement(models=["b"]))
    assert decision.data == statement(metadata="sealed", models=["b"])
