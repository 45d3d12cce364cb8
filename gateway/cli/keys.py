"""`emberlog keys`: create, list and revoke API keys; rotate the installation's own key."""

from __future__ import annotations

import re
import time
from typing import TYPE_CHECKING, Annotated, Any

import typer

from gateway.cli.common import (
    ConfigOption,
    Failed,
    JsonOption,
    parse_duration,
    parse_time,
    show,
    split_list,
    tell,
    with_installation,
)

if TYPE_CHECKING:
    from domain.tenancy import IssuedKey
    from gateway.manage import Installation, KeyRecord

app = typer.Typer(help="API keys, of a tenant or of the installation; the secret key.", no_args_is_help=True)


@app.command()
def create(
    scopes: Annotated[
        str, typer.Option(help="Comma-separated: agent, billing, admin, operator (installation keys only).")
    ],
    tenant: Annotated[str | None, typer.Option(help="The tenant; without it the key is the installation's.")] = None,
    expires_at: Annotated[str | None, typer.Option(help="When the key stops being valid, ISO 8601.")] = None,
    expires_in: Annotated[str | None, typer.Option(help="The same from now: 90s, 15m, 12h, 30d.")] = None,
    name: Annotated[str | None, typer.Option(help="What the key is for, to tell it from others.")] = None,
    agent: Annotated[str | None, typer.Option(help="The only agent that the key may speak for.")] = None,
    json: JsonOption = False,
    config: ConfigOption = None,
) -> None:
    """Make a key and show it, once: it is stored hashed. It is valid within a second on every running gateway."""
    expiry = _expiry(expires_at, expires_in)

    async def work(installation: Installation) -> IssuedKey:
        from domain.access_decisions import decide_create_key, keys_stream
        from domain.tenancy import issue_key

        # Refuses wrong scopes before anything is looked up.
        issued = issue_key(
            tenant, split_list(scopes), expires_at=expiry, name=name, agent=agent, actor=installation.actor
        )
        if tenant is not None:
            await installation.require_tenant(tenant, alive=True)
        async with installation.control() as control:
            await control.run(
                lambda plane: decide_create_key(plane, issued, by=None, now=time.time()), stream=keys_stream(tenant)
            )
        return issued

    issued = with_installation(config, work)
    token, key_id = issued.token, issued.event.key
    tell(
        {"key": token, "id": key_id},
        json,
        f"id:  {key_id}",
        f"key: {token}",
        "Keep the key now: it is not shown again.",
    )


@app.command("list")
def list_(
    tenant: Annotated[str | None, typer.Option(help="Only this tenant's keys.")] = None,
    json: JsonOption = False,
    config: ConfigOption = None,
) -> None:
    """List the keys in the order of their creation, the revoked ones too; secrets are not shown, for they are not kept."""

    async def work(installation: Installation) -> list[KeyRecord]:
        if tenant is not None:
            await installation.require_tenant(tenant)
        return [key for key in await installation.keys() if tenant is None or key.tenant == tenant]

    keys = with_installation(config, work)
    show(
        keys, json, ["id", "tenant", "scopes", "agent", "name", "created", "by", "expires", "revoked"],
        [
            [k.id, k.tenant or "(installation)", ",".join(k.scopes), k.agent, k.name, k.created_at, k.created_by, k.expires_at, "yes" if k.revoked else ""]
            for k in keys
        ],
    )  # fmt: skip


@app.command()
def revoke(
    key_id: Annotated[str, typer.Argument(metavar="ID", help="The key's id, as `keys list` shows it.")],
    json: JsonOption = False,
    config: ConfigOption = None,
) -> None:
    """Revoke a key: within a second it is refused everywhere and its open sessions are closed. Revoking it again changes nothing."""
    if not re.fullmatch(r"[0-9a-f]{16}", key_id):
        # Not repeated: it may be the key itself.
        raise typer.BadParameter(
            "expected the id of a key, 16 hexadecimal digits, as `emberlog keys list` shows it", param_hint="ID"
        )

    async def work(installation: Installation) -> None:
        from domain.access_decisions import decide_revoke_key, keys_stream

        async with installation.control() as control:
            found = control.plane.directory.keys.get(key_id)
            if found is None:
                raise Failed(f"there is no key {key_id}: see `emberlog keys list`")
            await control.run(
                lambda plane: decide_revoke_key(plane, key_id, by=None, actor=installation.actor),
                stream=keys_stream(found.tenant),
            )

    with_installation(config, work)
    tell({"id": key_id, "revoked": True}, json, f"revoked key {key_id}")


@app.command("rotate-master")
def rotate_master(
    forget_old: Annotated[
        bool, typer.Option("--forget-old", help="Take the older keys out of the file, once no tenant's key needs them.")
    ] = False,
    json: JsonOption = False,
    config: ConfigOption = None,
) -> None:
    """Wrap every tenant's key anew with the first key of the secret key file. Gateways may run meanwhile.

    An embedded installation whose file holds one key gets a new one, in front of it. With a database of your own, put the new key in
    front in every gateway's file first. Needs the owner's login. Stopped at any point, run it again.
    """

    async def work(installation: Installation) -> Any:
        from gateway import rotation

        if forget_old:
            return await rotation.forget_old(installation)
        return await rotation.rotate_master(installation, may_make=installation.embedded)

    done = with_installation(config, work)
    if forget_old:
        tell(
            {"forgotten": done},
            json,
            f"{done} older keys left the file; a backup made before the rotation needs them yet",
        )
        return
    said = [f"{done.rewrapped} of {done.tenants} tenants' keys were wrapped anew; the file holds {done.keys} keys"]
    if done.made:
        said.append("copy the file to where you keep its copy, for without it the tenants' keys are lost")
    if done.keys > 1:
        said.append("once every gateway has the first key: emberlog keys rotate-master --forget-old")
    if not done.wiped:
        said.append("dead rows of emberlog.tenant_keys may still hold keys as they were wrapped before: run this again")
    tell(done, json, *said)


def _expiry(expires_at: str | None, expires_in: str | None) -> int | None:
    """Seconds since the epoch, or None for a key that does not expire."""
    if expires_at is not None and expires_in is not None:
        raise typer.BadParameter("give one of --expires-at and --expires-in", param_hint="--expires-in")
    now = time.time()
    if expires_in is not None:
        return int(now + parse_duration(expires_in, "--expires-in").total_seconds())
    at = parse_time(expires_at, "--expires-at")
    if at is None:
        return None
    if at.timestamp() <= now:
        raise typer.BadParameter(f"{expires_at} has passed: expected a time to come", param_hint="--expires-at")
    return int(at.timestamp())
