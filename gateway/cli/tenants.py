"""`emberlog tenants`: create, list, configure and shred tenants."""

from __future__ import annotations

import sys
from functools import partial
from typing import TYPE_CHECKING, Annotated, Any

import typer

from gateway.cli.common import ConfigOption, Failed, JsonOption, LedgerOption, fields, show, tell, with_installation

if TYPE_CHECKING:
    from gateway.manage import Installation, TenantRecord
    from gateway.shredding import Shredded
    from gateway.tenant_documents import TenantSettings

app = typer.Typer(help="Tenants: each has its own keys, agents, usage and bill.", no_args_is_help=True)


@app.command()
def create(
    name: Annotated[str, typer.Argument(help="The tenant's id: a-z, 0-9, '.', '_' and '-', at most 63 characters.")],
    json: JsonOption = False,
    config: ConfigOption = None,
) -> None:
    """Make a tenant. It can be used within a second by every running gateway."""

    async def work(installation: Installation) -> None:
        from domain.access_decisions import decide_create_tenant
        from domain.errors import GatewayError
        from gateway.decisions import keep_tenant_key

        exists = Failed(f"tenant {name} already exists")
        master = installation.master()
        async with installation.control() as control:
            decide = partial(decide_create_tenant, name=name, actor=installation.actor)
            try:
                if not decide(control.plane):
                    raise exists
            except GatewayError as error:
                if error.code != "resource_constraint":
                    raise
                raise Failed(error.message) from None
            await keep_tenant_key(installation.log, master, name)
            if not (await control.run(decide, stream=f"tenant/{name}")).changed:
                raise exists

    with_installation(config, work)
    tell({"id": name}, json, f"created tenant {name}")


@app.command("list")
def list_(json: JsonOption = False, config: ConfigOption = None) -> None:
    """List the tenants in the order of their creation."""

    async def work(installation: Installation) -> list[TenantRecord]:
        return await installation.tenants()

    tenants = with_installation(config, work)
    show(tenants, json, ["id", "created", "shredded"], [[t.id, t.created_at, t.shredded_at] for t in tenants])


@app.command("show")
def show_(
    name: Annotated[str, typer.Argument(help="The tenant.")], json: JsonOption = False, config: ConfigOption = None
) -> None:
    """Show what holds for every request of a tenant."""

    async def work(installation: Installation) -> TenantSettings:
        from gateway.tenant_documents import tenant_settings

        await installation.require_tenant(name, alive=True)
        async with installation.control() as control:
            return tenant_settings(control.plane, name)

    _tell(with_installation(config, work), json)


@app.command()
def configure(
    name: Annotated[str, typer.Argument(help="The tenant.")],
    failover: Annotated[
        str | None, typer.Option(help="same_space, any or none: what holds where a request does not say.")
    ] = None,
    time_zone: Annotated[
        str | None, typer.Option(help="Whose days and months its quotas have: an IANA name such as Europe/Paris.")
    ] = None,
    require_known_prices: Annotated[
        bool | None, typer.Option(help="Whether models of unknown price are left out.")
    ] = None,
    tier: Annotated[str | None, typer.Option(help="free, starter, pro or enterprise.")] = None,
    price_ceiling: Annotated[
        str | None, typer.Option(help="cheapest or none: what is left once a soft budget is used up.")
    ] = None,
    expected_version: Annotated[
        int | None, typer.Option(help="The version that was read: where it is another by now, nothing is changed.")
    ] = None,
    json: JsonOption = False,
    config: ConfigOption = None,
) -> None:
    """Change what holds for every request of a tenant; what you leave out stays. In force within a second everywhere."""
    given: dict[str, Any] = {
        "failover": failover,
        "time_zone": time_zone,
        "require_known_prices": require_known_prices,
        "tier": tier,
        "price_ceiling": price_ceiling,
    }
    wanted = {setting: value for setting, value in given.items() if value is not None}

    async def work(installation: Installation) -> TenantSettings:
        from domain.tenant_config import decide_tenant_settings
        from gateway.tenant_documents import tenant_settings

        await installation.require_tenant(name, alive=True)
        async with installation.control() as control:
            await control.run(
                lambda plane: decide_tenant_settings(plane, name, wanted, operator=True, actor=installation.actor),
                stream=f"tenant/{name}",
                expected_version=expected_version,
            )
            return tenant_settings(control.plane, name)

    _tell(with_installation(config, work), json)


def _tell(settings: TenantSettings, json: bool) -> None:
    import msgspec

    tell(settings, json, *fields(msgspec.to_builtins(settings)))


@app.command()
def shred(
    name: Annotated[str, typer.Argument(help="The tenant.")],
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    ledger: LedgerOption = None,
    json: JsonOption = False,
    config: ConfigOption = None,
) -> None:
    """Destroy a tenant's key, for good: whatever it sealed or fingerprinted cannot be opened or guessed any more.

    Its API keys are refused and its sessions closed within a second, its vectors leave the caches, its name is never free again. Its
    events stay, and with them its usage and its bill. Stopped at any point, run it again. Needs the owner's login.
    """
    _confirm(name, yes)

    async def work(installation: Installation) -> Shredded:
        from gateway.shredding import shred_tenant

        return await shred_tenant(installation, installation.ledger(ledger), name)

    done = with_installation(config, work)
    said = [f"tenant {name} was shredded already" if done.already else f"shredded tenant {name}"]
    if not done.wiped:
        said.append("its key may still be in dead rows of emberlog.tenant_keys, which is in use: run this again")
    if done.cache == "out of reach":
        said.append("the shared cache cannot be reached: running gateways purge it, or run this again")
    tell(done, json, *said)


def _confirm(name: str, yes: bool) -> None:
    if yes:
        return
    if not sys.stdin.isatty():
        raise typer.BadParameter("this cannot be undone: give --yes, or run it on a terminal", param_hint="--yes")
    if typer.prompt(f"This cannot be undone. Type the name of the tenant to shred ({name})", err=True) != name:
        typer.echo("emberlog: that is another name: nothing was shredded", err=True)
        raise typer.Exit(1)
