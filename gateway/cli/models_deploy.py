"""`emberlog models deploy`, `undeploy` and `deployments`: endpoints put to work, taken out again, and looked at."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TypeVar

import typer

from gateway.cli.common import ConfigOption, Failed, JsonOption, show, tell, with_installation

if TYPE_CHECKING:
    from domain.endpoints import Deployment
    from gateway.gateway import Gateway
    from gateway.manage import Installation

T = TypeVar("T")
SETTLE_SECONDS = 300.0

ModelArgument = Annotated[str, typer.Argument(metavar="MODEL", help="The model's id, or an alias of it.")]
DeploymentArgument = Annotated[
    str,
    typer.Argument(metavar="DEPLOYMENT", help="Its id, or its endpoint's name, as `models deployments` shows them."),
]
OwnerOption = Annotated[str | None, typer.Option(help="Whom it serves alone; without it everybody.")]


def deploy(
    model: ModelArgument,
    name: Annotated[str, typer.Option(help="What the endpoint is called.")],
    provider: Annotated[str, typer.Option(help="The provider, such as openai.")],
    provider_model: Annotated[str, typer.Option(help="The provider's id of the model, if not the offering's.")] = "",
    also: Annotated[list[str] | None, typer.Option(help="Another model that it serves.")] = None,
    tenant: OwnerOption = None,
    credential: Annotated[str | None, typer.Option(help="The credential that holds the key.")] = None,
    api_key_env: Annotated[str | None, typer.Option(help="The environment variable that holds it.")] = None,
    base_url: Annotated[str | None, typer.Option(help="Another address than the provider's own.")] = None,
    max_inputs: Annotated[int | None, typer.Option(help="Texts of a call, if fewer than the offering's.")] = None,
    max_tokens_per_call: Annotated[int | None, typer.Option(help="Tokens of a call, if fewer.")] = None,
    max_concurrency: Annotated[int, typer.Option(help="Calls at once.")] = 8,
    timeout_ms: Annotated[int, typer.Option(help="How long a call may take.")] = 30_000,
    weight: Annotated[int, typer.Option(help="Its share of requests; 0 stands by.")] = 1,
    option: Annotated[
        list[str] | None, typer.Option(metavar="NAME=VALUE", help="An option of the provider's, such as region.")
    ] = None,
    json: JsonOption = False,
    config: ConfigOption = None,
) -> None:
    """Put an endpoint to work for a model, in every gateway of the installation.

    Opens a gateway of its own for that, so that the variable which holds the key must be in this command's environment, too.
    """
    options = _options(option)

    async def work(gateway: Gateway, actor: str) -> tuple[Deployment, bool]:
        from domain.events import EndpointSpec
        from domain.model_decisions import model_of

        found = model_of(gateway.plane, model).id
        spec = EndpointSpec(
            provider=provider,
            models={**dict.fromkeys(also or [], ""), found: provider_model},
            base_url=base_url,
            api_key_env=api_key_env,
            credential=credential,
            max_inputs=max_inputs,
            max_tokens_per_call=max_tokens_per_call,
            max_concurrency=max_concurrency,
            timeout_ms=timeout_ms,
            weight=weight,
            options=options,
        )
        made, new = await gateway.deployments.deploy(
            lambda stream, decide: gateway.control.run(decide, stream=stream),
            name, found, spec, owner=tenant, operator=True, actor=actor,
        )  # fmt: skip
        return await gateway.deployments.settled(made, SETTLE_SECONDS), new

    deployment, new = _run(config, tenant, work)
    _tell(deployment, json, "" if new else " already")
    if deployment.state == "failed":
        raise typer.Exit(1)


def undeploy(
    deployment: DeploymentArgument, tenant: OwnerOption = None, json: JsonOption = False, config: ConfigOption = None
) -> None:
    """Take an endpoint out of service. What is under way there ends first, in every gateway."""

    async def work(gateway: Gateway, actor: str) -> Deployment:
        from domain.deployment_decisions import find_deployment

        found = find_deployment(gateway.plane, deployment, tenant)
        found = await gateway.deployments.undeploy(
            lambda stream, decide: gateway.control.run(decide, stream=stream), found, actor=actor
        )
        return await gateway.deployments.settled(found, SETTLE_SECONDS)

    _tell(_run(config, tenant, work), json)


def deployments(
    model: Annotated[str | None, typer.Argument(metavar="[MODEL]", help="Only those that serve this model.")] = None,
    tenant: Annotated[str | None, typer.Option(help="Only those of this tenant.")] = None,
    json: JsonOption = False,
    config: ConfigOption = None,
) -> None:
    """List the latest deployment of each endpoint."""

    async def work(installation: Installation) -> list[Deployment]:
        from domain.model_decisions import model_of

        async with installation.control() as control:
            found = control.plane.endpoints.deployments
            wanted = None if model is None else model_of(control.plane, model).id
            return [
                found[name]
                for name in sorted(found)
                if tenant in (None, found[name].owner) and (wanted is None or wanted in found[name].spec.models)
            ]

    from gateway.endpoints.deployment_document import deployment_document

    listed = [deployment_document(d) for d in with_installation(config, work)]
    show(
        listed, json, ["endpoint", "model", "provider", "tenant", "state", "stage", "reason"],
        [[d.endpoint, d.model, d.spec.provider, d.tenant, d.state, d.stage, d.reason] for d in listed],
    )  # fmt: skip


def _options(given: list[str] | None) -> dict[str, str]:
    found = {}
    for pair in given or []:
        name, equals, value = pair.partition("=")
        if not equals or not name:
            raise typer.BadParameter(f"{pair[:60]!r}: expected NAME=VALUE", param_hint="--option")
        found[name] = value
    return found


def _tell(deployment: Deployment, json: bool, more: str = "") -> None:
    from gateway.endpoints.deployment_document import deployment_document

    why = [f"  {deployment.stage}: {deployment.reason}"] if deployment.state == "failed" else []
    tell(deployment_document(deployment), json, f"{deployment.endpoint}: {deployment.state}{more}", *why)


def _run(config: Path | None, tenant: str | None, work: Callable[[Gateway, str], Awaitable[T]]) -> T:
    async def opened(installation: Installation) -> T:
        from adapters.providers.registry import EndpointError
        from gateway.gateway import Gateway

        if tenant is not None:
            await installation.require_tenant(tenant, alive=True)
        try:
            gateway = await Gateway.open(installation.settings, installation.places, installation.master())
        except EndpointError as error:
            raise Failed(str(error)) from None
        try:
            return await work(gateway, installation.actor)
        finally:
            await gateway.close()

    return with_installation(config, opened)
