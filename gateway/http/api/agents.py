"""`/api/v1/agents`: the agents of a tenant, what they state, and which models they get."""

from __future__ import annotations

from typing import Any

import msgspec

from domain.agents import agent_of, agent_stream, decide_changed_agent, decide_new_agent
from domain.errors import GatewayError
from domain.events import AgentRegistered
from domain.tenancy import Principal
from gateway.chosen_model import AgentModels, agent_models
from gateway.http.api.quotas import standing_quotas
from gateway.http.api.route import Answer, ApiRoute, Call, Pagination, Parameter
from gateway.tenant_documents import Agent, AgentPreferences, agent_document


class AgentStatement(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What an agent states, whole: the latest statement holds. The metadata that it states on its session stay as they are."""

    preferences: AgentPreferences
    name: str | None = None
    agent_version: str | None = None
    capabilities: list[str] = []


class NewAgent(AgentStatement, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """An agent to make."""

    agent_id: str


class Agents(msgspec.Struct, frozen=True):
    """Agents of a tenant, by id."""

    agents: list[Agent]
    pagination: Pagination


def speaks_for(principal: Principal, agent: str | None) -> str:
    """The agent that is meant: the one named, else the key's own. Raises `forbidden` where the key speaks for another."""
    if principal.agent is not None and agent not in (None, principal.agent):
        raise GatewayError(
            "forbidden",
            f"this key speaks for the agent {principal.agent!r} alone: leave the agent out, or use another key",
            details={"field": "agent_id"},
        )
    return agent or principal.default_agent


async def listing(call: Call) -> Agents:
    """A page of the tenant's agents: its own for a key that speaks for one."""
    tenant, own = call.tenant, call.principal.agent
    known = sorted(a for a in call.plane.directory.agents_of.get(tenant, ()) if own in (None, a))
    page, pagination = call.page(known)
    return Agents([_document(call, agent) for agent in page], pagination)


async def show(call: Call) -> Agent:
    """One agent."""
    return _document(call, _agent(call))


async def register(call: Call) -> Answer:
    """Make an agent."""
    agent = speaks_for(call.principal, call.body.agent_id)
    data = _statement(call, agent)
    written = await call.decide(
        agent_stream(call.tenant, agent), lambda plane: decide_new_agent(plane, call.tenant, data)
    )
    return Answer(_document(call, agent), status=201 if written.changed else 200)


async def change(call: Call) -> Agent:
    """State something else for an agent that there is."""
    agent = _agent(call)
    data = _statement(call, agent)
    await call.decide(agent_stream(call.tenant, agent), lambda plane: decide_changed_agent(plane, call.tenant, data))
    return _document(call, agent)


async def models(call: Call) -> AgentModels:
    """Which models the agent gets. Raises what selection raises."""
    agent, task = _agent(call), call.query.text("task_type")
    agent_of(call.plane, call.tenant, agent)
    return agent_models(call.service.selector, call.tenant, agent, task, await standing_quotas(call, agent))


def _agent(call: Call) -> str:
    return speaks_for(call.principal, call.path["agent"])


def _statement(call: Call, agent: str) -> AgentRegistered:
    body: AgentStatement = call.body
    return AgentRegistered(
        agent=agent,
        preferences=body.preferences.stated(),
        name=body.name,
        version=body.agent_version,
        capabilities=body.capabilities,
        actor=call.actor,
    )


def _document(call: Call, agent: str) -> Agent:
    return agent_document(call.plane, call.tenant, agent_of(call.plane, call.tenant, agent))


def _route(method: str, path: str, name: str, summary: str, handler: Any, answer: type, **more: Any) -> ApiRoute:
    return ApiRoute(
        method=method,
        path=f"/api/v1/agents{path}",
        aliases=(f"/api/v1/embeddings/agents{path}",),
        name=name,
        summary=summary,
        tag="agents",
        handler=handler,
        answer=answer,
        scopes=("agent", "admin"),
        **more,
    )


ROUTES = (
    _route("GET", "", "listAgents", "The agents of the tenant", listing, Agents, paged=True),
    _route(
        "POST",
        "",
        "registerAgent",
        "Make an agent: the same again is 200, something else 409",
        register,
        Agent,
        body=NewAgent,
        statuses=(201, 200),
        errors=(409,),
    ),
    _route("GET", "/{agent}", "getAgent", "An agent and what it states", show, Agent),
    _route("PUT", "/{agent}", "changeAgent", "State something else for an agent", change, Agent, body=AgentStatement),
    _route(
        "GET",
        "/{agent}/models",
        "getAgentModels",
        "The model that the agent gets where it names none, and those behind it",
        models,
        AgentModels,
        query=(Parameter("task_type", "The task that the request names."),),
        errors=(402, 504),
    ),
)
