"""`emberlog agents`: what the agents of a tenant state, and which models they get."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from gateway.cli.common import ConfigOption, JsonOption, fields, show, split_list, tell, with_installation

if TYPE_CHECKING:
    from domain.events import AgentRegistered
    from gateway.chosen_model import AgentModels
    from gateway.manage import Installation
    from gateway.tenant_documents import Agent

app = typer.Typer(help="Agents of tenants: their preferences and the models they get.", no_args_is_help=True)

TenantOption = Annotated[str, typer.Option(help="The tenant.")]
AgentArgument = Annotated[str, typer.Argument(metavar="AGENT", help="The agent's id.")]


@app.command("list")
def list_(tenant: TenantOption, json: JsonOption = False, config: ConfigOption = None) -> None:
    """List the agents of a tenant."""

    async def work(installation: Installation) -> list[Agent]:
        from gateway.tenant_documents import agent_document

        await installation.require_tenant(tenant)
        async with installation.control() as control:
            known = control.plane.directory.agents
            return [agent_document(control.plane, tenant, known[key]) for key in sorted(known) if key[0] == tenant]

    agents = with_installation(config, work)
    rows = [[a.agent_id, a.preferences.strategy, ", ".join(a.preferences.models), a.version] for a in agents]
    show([{"id": a.agent_id, **_plain(a)} for a in agents], json, ["id", "strategy", "ranked models", "version"], rows)


@app.command("show")
def show_(agent: AgentArgument, tenant: TenantOption, json: JsonOption = False, config: ConfigOption = None) -> None:
    """Show what an agent states."""

    async def work(installation: Installation) -> Agent:
        from domain.agents import agent_of
        from gateway.tenant_documents import agent_document

        await installation.require_tenant(tenant)
        async with installation.control() as control:
            return agent_document(control.plane, tenant, agent_of(control.plane, tenant, agent))

    found = with_installation(config, work)
    tell(found, json, *fields(_plain(found)))


@app.command("set")
def set_(
    agent: AgentArgument,
    tenant: TenantOption,
    strategy: Annotated[str, typer.Option(help="tenant_default, fixed, cost, latency or quality.")] = "tenant_default",
    models: Annotated[str | None, typer.Option(help="Comma-separated: ranked models, best first.")] = None,
    task_model: Annotated[
        list[str] | None, typer.Option(metavar="TASK=MODEL", help="The model for a task; once for each.")
    ] = None,
    required_dimensions: Annotated[int | None, typer.Option(help="The size that its vectors must have.")] = None,
    max_cost_per_request_nano_usd: Annotated[int | None, typer.Option(help="What a request may cost at most.")] = None,
    monthly_budget_nano_usd: Annotated[int | None, typer.Option(help="What a month may cost at most.")] = None,
    max_latency_ms: Annotated[int | None, typer.Option(help="What a model's measured latency may be at most.")] = None,
    name: Annotated[str | None, typer.Option(help="What people call it.")] = None,
    expected_version: Annotated[
        int | None, typer.Option(help="The version that was read: where it is another by now, nothing changes.")
    ] = None,
    json: JsonOption = False,
    config: ConfigOption = None,
) -> None:
    """State how an agent's models are chosen, whole: what is not given is not asked for any more. An unknown agent is made."""
    tasks = dict(_task(text) for text in task_model or [])

    async def work(installation: Installation) -> tuple[Agent, bool]:
        import msgspec

        from domain.agents import agent_stream, decide_agent
        from domain.events import AgentRegistered, Preferences
        from domain.plane import ControlPlane
        from gateway.tenant_documents import agent_document

        await installation.require_tenant(tenant, alive=True)
        stated = AgentRegistered(
            agent,
            Preferences(
                strategy=strategy,
                models=split_list(models or ""),
                task_models=tasks,
                required_dimensions=required_dimensions,
                max_cost_per_request_nano_usd=max_cost_per_request_nano_usd,
                monthly_budget_nano_usd=monthly_budget_nano_usd,
                max_latency_ms=max_latency_ms,
            ),
            name=name,
            actor=installation.actor,
        )

        def data(plane: ControlPlane) -> AgentRegistered:
            """What the agent says of itself on its sessions stays."""
            known = plane.directory.agents.get((tenant, agent))
            if known is None:
                return stated
            return msgspec.structs.replace(
                known, preferences=stated.preferences, name=name or known.name, actor=stated.actor
            )

        async with installation.control() as control:
            written = await control.run(
                lambda plane: decide_agent(plane, tenant, data(plane), known_models=True),
                stream=agent_stream(tenant, agent),
                expected_version=expected_version,
            )
            return agent_document(control.plane, tenant, data(control.plane)), written.changed

    found, changed = with_installation(config, work)
    tell(found, json, f"{'set' if changed else 'is so already'}: agent {agent} of {tenant}, version {found.version}")


@app.command("models")
def models_(
    agent: AgentArgument,
    tenant: TenantOption,
    task_type: Annotated[str | None, typer.Option(help="The task that the request names.")] = None,
    json: JsonOption = False,
    config: ConfigOption = None,
) -> None:
    """Show the model that an agent gets where it names none, and those in line behind it."""

    async def work(installation: Installation) -> AgentModels:
        from domain.agents import agent_of
        from gateway.chosen_model import agent_models
        from gateway.cli.choosing import choosing

        async with choosing(installation, tenant) as found:
            agent_of(found.control.plane, tenant, agent)
            return agent_models(found.selector, tenant, agent, task_type, found.quotas)

    found = with_installation(config, work)
    show(found, json, ["model", "reason"], [[r.model, r.reason] for r in found.reasons])


def _task(text: str) -> tuple[str, str]:
    task, equals, model = text.partition("=")
    if not equals or not task or not model:
        raise typer.BadParameter(f"{text[:60]!r}: expected TASK=MODEL", param_hint="--task-model")
    return task, model


def _plain(agent: Agent) -> dict[str, Any]:
    import msgspec

    return dict(msgspec.to_builtins(agent))
