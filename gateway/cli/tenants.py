"""`emberlog tenants`: create and list tenants."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from gateway.cli.common import ConfigOption, Failed, JsonOption, show, tell, with_installation

if TYPE_CHECKING:
    from gateway.manage import Installation, TenantRecord

app = typer.Typer(help="Tenants: each has its own keys, agents, usage and bill.", no_args_is_help=True)


@app.command()
def create(
    name: Annotated[str, typer.Argument(help="The tenant's id: a-z, 0-9, '.', '_' and '-', at most 63 characters.")],
    json: JsonOption = False,
    config: ConfigOption = None,
) -> None:
    """Make a tenant. It can be used within a second by every running gateway."""

    async def work(installation: Installation) -> None:
        from domain.errors import GatewayError
        from domain.tenancy import check_tenant_name
        from gateway.decisions import create_tenant

        check_tenant_name(name)
        master = installation.master()
        async with installation.writer() as instance:
            try:
                await create_tenant(installation.log, instance, master, name)
            except GatewayError as error:
                if error.code != "version_conflict":
                    raise
                raise Failed(f"tenant {name} already exists") from None

    with_installation(config, work)
    tell({"id": name}, json, f"created tenant {name}")


@app.command("list")
def list_(json: JsonOption = False, config: ConfigOption = None) -> None:
    """List the tenants in the order of their creation."""

    async def work(installation: Installation) -> list[TenantRecord]:
        return await installation.tenants()

    tenants = with_installation(config, work)
    show(tenants, json, ["id", "created"], [[t.id, t.created_at] for t in tenants])
