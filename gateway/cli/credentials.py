"""`emberlog credentials`: the credentials by which endpoints call providers. A secret comes from stdin or the environment, never as an argument."""

from __future__ import annotations

import getpass
import os
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TypeVar

import typer

from gateway.cli.common import ConfigOption, JsonOption, show, tell, with_installation

if TYPE_CHECKING:
    from gateway.credential_admin import CredentialAdmin, CredentialDocument, Take
    from gateway.manage import Installation

T = TypeVar("T")
app = typer.Typer(help="Credentials for providers: a tenant's own, or the installation's.", no_args_is_help=True)

NameArgument = Annotated[str, typer.Argument(metavar="NAME", help="The credential's name.")]
TenantOption = Annotated[str | None, typer.Option(help="Whose; without it those of the installation.")]


@app.command("set")
def set_(
    name: NameArgument,
    provider: Annotated[str, typer.Option(help="The provider that it is for, such as openai.")],
    tenant: TenantOption = None,
    secret_env: Annotated[
        str | None,
        typer.Option(help="The environment variable that holds the secret; without it, it is read from stdin."),
    ] = None,
    json: JsonOption = False,
    config: ConfigOption = None,
) -> None:
    """Set a credential, or give it a new secret. Endpoints that use it do so from their next call on."""
    secret = _secret(secret_env)

    async def work(admin: CredentialAdmin, take: Take, actor: str) -> CredentialDocument:
        return await admin.set(take, tenant, name, provider=provider, secret=secret, actor=actor)

    found = _run(config, tenant, work)
    tell(found, json, f"{found.name}: revision {found.revision} for {found.provider}")


@app.command("list")
def list_(tenant: TenantOption = None, json: JsonOption = False, config: ConfigOption = None) -> None:
    """List credentials; their secrets are not shown."""

    async def work(admin: CredentialAdmin, take: Take, actor: str) -> list[CredentialDocument]:
        return admin.listed(tenant)

    found = _run(config, tenant, work)
    show(
        found, json, ["name", "tenant", "provider", "revision", "endpoints"],
        [[c.name, c.tenant or "(installation)", c.provider, c.revision, ",".join(c.endpoints)] for c in found],
    )  # fmt: skip


@app.command()
def remove(
    name: NameArgument, tenant: TenantOption = None, json: JsonOption = False, config: ConfigOption = None
) -> None:
    """Remove a credential that no endpoint uses, and its secret."""

    async def work(admin: CredentialAdmin, take: Take, actor: str) -> None:
        await admin.remove(take, tenant, name, actor=actor)

    _run(config, tenant, work)
    tell({"name": name, "removed": True}, json, f"removed {name}")


def _secret(variable: str | None) -> str:
    if variable is None:
        if sys.stdin.isatty():  # one line, which the terminal does not show; what has more lines comes from a file
            return getpass.getpass("The secret (it is not shown): ", stream=sys.stderr)
        try:
            return sys.stdin.read()
        except UnicodeDecodeError:
            raise typer.BadParameter("what was given on stdin is no text in UTF-8", param_hint="stdin") from None
    if variable not in os.environ:
        raise typer.BadParameter(f"the environment variable {variable} is not set", param_hint="--secret-env")
    return os.environ[variable]


def _run(config: Path | None, tenant: str | None, work: Callable[[CredentialAdmin, Take, str], Awaitable[T]]) -> T:
    async def opened(installation: Installation) -> T:
        from gateway.credential_admin import CredentialAdmin
        from gateway.credentials import CredentialSecrets

        if tenant is not None:
            await installation.require_tenant(tenant, alive=True)
        async with installation.control() as control:
            secrets = CredentialSecrets(installation.log.pool, installation.master(), {})
            return await work(
                CredentialAdmin(control.plane, secrets),
                lambda stream, decide: control.run(decide, stream=stream),
                installation.actor,
            )

    return with_installation(config, opened)
