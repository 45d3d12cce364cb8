"""The agents of a tenant: what one states about itself and how it wants its models chosen, and the rules for that.

An agent may name models that the catalogue does not have, or not yet: they are passed over, and it works on wherever it connects. Who
states it for an agent, over the management API or by a command, is told of them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from domain.decision import Decision
from domain.errors import GatewayError
from domain.events import AgentRegistered, Preferences
from domain.model_lifecycle import DRAFT, REMOVED
from domain.problems import Problems
from domain.quotas import resolve_model
from domain.selection import STRATEGIES

if TYPE_CHECKING:
    from domain.plane import ControlPlane

MAX_AGENTS = 10_000
"""Agents a tenant may have."""
MAX_NAME = 128
"""Characters of an agent's id, name and version, of a capability and of the name of a task."""
MAX_MODELS = 50
MAX_TASKS = 200
MAX_CAPABILITIES = 100
MAX_INTEGER = 2**63 - 1
BOUNDS = ("required_dimensions", "max_cost_per_request_nano_usd", "monthly_budget_nano_usd", "max_latency_ms")


def agent_stream(tenant: str, agent: str) -> str:
    """The stream of an agent's statements."""
    return f"agent/{tenant}/{agent}"


def agent_of(plane: ControlPlane, tenant: str, agent: str) -> AgentRegistered:
    """What the agent states. Raises `not_found`."""
    found = plane.directory.agents.get((tenant, agent))
    if found is None:
        raise GatewayError(
            "not_found",
            f"there is no agent {agent[:MAX_NAME]!r}: it exists once it has registered, or POST /api/v1/agents has named it",
            details={"field": "agent_id"},
        )
    return found


def decide_agent(
    plane: ControlPlane, tenant: str, data: AgentRegistered, *, known_models: bool = False
) -> list[Decision]:
    """An agent states this: the latest statement holds. Nothing is to do where it has stated the same before.

    With `known_models` every model must be in the catalogue. Raises `invalid_config` naming every field that is wrong, `resource_constraint` for one agent too many.
    """
    known = plane.directory.agents.get((tenant, data.agent))
    if known is not None and msgspec.structs.replace(data, actor=known.actor) == known:
        return []
    check_statement(plane, data, known_models=known_models)
    if known is None and len(plane.directory.agents_of.get(tenant, ())) >= MAX_AGENTS:
        raise GatewayError(
            "resource_constraint", f"the tenant has {MAX_AGENTS} agents, the most there can be: reuse agent ids"
        )
    return [Decision(tenant, agent_stream(tenant, data.agent), data)]


def decide_new_agent(plane: ControlPlane, tenant: str, data: AgentRegistered) -> list[Decision]:
    """The same for an agent that is made: one that states something else already is a `version_conflict`."""
    known = plane.directory.agents.get((tenant, data.agent))
    if known is not None and msgspec.structs.replace(data, actor=known.actor, metadata=known.metadata) != known:
        raise GatewayError(
            "version_conflict",
            f"there is an agent {data.agent!r} that states something else: PUT /api/v1/agents/{data.agent} changes it",
            details={"field": "agent_id"},
        )
    return [] if known is not None else decide_agent(plane, tenant, data, known_models=True)


def decide_changed_agent(plane: ControlPlane, tenant: str, data: AgentRegistered) -> list[Decision]:
    """The same for an agent that there is, else `not_found`; the metadata that it states itself stay."""
    known = agent_of(plane, tenant, data.agent)
    return decide_agent(plane, tenant, msgspec.structs.replace(data, metadata=known.metadata), known_models=True)


def check_statement(plane: ControlPlane, data: AgentRegistered, *, known_models: bool) -> None:
    """Raise `invalid_config` naming every field that is wrong."""
    problems = Problems()
    if not 1 <= len(data.agent) <= MAX_NAME:
        problems.add("agent_id", f"has {len(data.agent)} characters; expected 1 to {MAX_NAME}")
    for field, value in (("name", data.name), ("agent_version", data.version)):
        if value is not None and len(value) > MAX_NAME:
            problems.add(field, f"has {len(value)} characters; expected at most {MAX_NAME}")
    if len(data.capabilities) > MAX_CAPABILITIES or any(len(c) > MAX_NAME for c in data.capabilities):
        problems.add("capabilities", f"expected at most {MAX_CAPABILITIES}, of at most {MAX_NAME} characters each")
    _check_preferences(data.preferences, problems)
    if known_models:
        _check_models(plane, data.preferences, problems)
    problems.check(f"agent {data.agent[:MAX_NAME]!r}")


def _check_preferences(stated: Preferences, problems: Problems) -> None:
    if stated.strategy not in STRATEGIES:
        problems.add("preferences.strategy", f"{stated.strategy[:40]!r} is none of {', '.join(STRATEGIES)}")
    if len(stated.models) > MAX_MODELS:
        problems.add("preferences.models", f"has {len(stated.models)} models; expected at most {MAX_MODELS}")
    if len(stated.task_models) > MAX_TASKS:
        problems.add("preferences.task_models", f"has {len(stated.task_models)} tasks; expected at most {MAX_TASKS}")
    named = [*stated.models, *stated.task_models, *stated.task_models.values()]
    if any(not 1 <= len(name) <= MAX_NAME for name in named):
        problems.add(
            "preferences", f"the name of a model or task has none or too many characters; expected 1 to {MAX_NAME}"
        )
    for field in BOUNDS:
        value = getattr(stated, field)
        if value is not None and not 1 <= value <= MAX_INTEGER:
            problems.add(f"preferences.{field}", "expected a positive 64-bit integer")


def _check_models(plane: ControlPlane, stated: Preferences, problems: Problems) -> None:
    if stated.strategy == "fixed" and not stated.models and not stated.task_models:
        problems.add("preferences.models", "the strategy 'fixed' takes only models that are named: name one")
    ranked = [(f"preferences.models[{index}]", name) for index, name in enumerate(stated.models[:MAX_MODELS])]
    tasks = list(stated.task_models.items())[:MAX_TASKS]
    for field, name in ranked + [(f"preferences.task_models.{task[:MAX_NAME]}", name) for task, name in tasks]:
        known = resolve_model(plane, name)
        if known is None or plane.models.models[known].state in (DRAFT, REMOVED):
            problems.add(field, f"there is no model {name[:MAX_NAME]!r} in the catalogue")
