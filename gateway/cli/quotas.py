"""`emberlog quotas`: set, remove and list quotas and budgets, with what is used and reserved of them."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Annotated

import typer

from gateway.cli.common import (
    ConfigOption,
    Failed,
    JsonOption,
    TenantVersionOption,
    fields,
    show,
    tell,
    with_installation,
)

if TYPE_CHECKING:
    from gateway.control import Written
    from gateway.manage import Installation
    from projections.quota.query import QuotaStanding

app = typer.Typer(help="Quotas and budgets of tenants, of models and of agents.", no_args_is_help=True)

TenantOption = Annotated[str, typer.Option(help="The tenant.")]
ScopeOption = Annotated[str, typer.Option(help="What it is of: tenant, model or agent.")]
SubjectOption = Annotated[str | None, typer.Option(help="Which model or agent.")]
UnitOption = Annotated[str, typer.Option(help="What it counts: tokens, requests or nano_usd (10^-9 US dollars).")]
WindowOption = Annotated[str, typer.Option(help="The calendar window: day or month, in the tenant's time zone.")]
WaitOption = Annotated[float, typer.Option(min=0.1, help="Seconds to wait for the view to reach the log's head.")]


@app.command("set")
def set_(
    tenant: TenantOption,
    unit: UnitOption,
    limit: Annotated[str, typer.Option(help="How much of it, a whole number.")],
    scope: ScopeOption = "tenant",
    subject: SubjectOption = None,
    window: WindowOption = "month",
    soft: Annotated[bool, typer.Option("--soft", help="Count and warn, and refuse nothing.")] = False,
    expected_version: TenantVersionOption = None,
    json: JsonOption = False,
    config: ConfigOption = None,
) -> None:
    """Set a quota, or change its limit. It is in force in every running gateway within a second, for what its window has left."""
    if not re.fullmatch(r"[0-9]{1,30}", limit):
        raise typer.BadParameter(f"{limit[:40]!r} is no whole number from 0 on", param_hint="--limit")

    async def work(installation: Installation) -> Written:
        from domain.quotas import decide_set_quota

        async with installation.control() as control:
            return await control.run(
                lambda plane: decide_set_quota(
                    plane,
                    tenant,
                    scope=scope,
                    unit=unit,
                    window=window,
                    limit=int(limit),
                    subject=subject,
                    hard=not soft,
                    operator=True,
                    actor=installation.actor,
                ),
                stream=f"tenant/{tenant}",
                expected_version=expected_version,
            )

    written = with_installation(config, work)
    document = {"tenant": tenant, "scope": scope, "subject": subject, "unit": unit, "window": window}
    tell(
        {**document, "limit": int(limit), "hard": not soft, "changed": written.changed, "version": written.version},
        json,
        f"set {limit} {unit} a {window} for {_name(tenant, scope, subject)}{', soft' if soft else ''}"
        if written.changed
        else "it was so already",
    )


@app.command()
def remove(
    tenant: TenantOption,
    unit: UnitOption,
    scope: ScopeOption = "tenant",
    subject: SubjectOption = None,
    window: WindowOption = "month",
    expected_version: TenantVersionOption = None,
    json: JsonOption = False,
    config: ConfigOption = None,
) -> None:
    """Remove a quota: nothing limits this any more."""

    async def work(installation: Installation) -> Written:
        from domain.quotas import decide_remove_quota

        async with installation.control() as control:
            return await control.run(
                lambda plane: decide_remove_quota(
                    plane,
                    tenant,
                    scope=scope,
                    unit=unit,
                    window=window,
                    subject=subject,
                    operator=True,
                    actor=installation.actor,
                ),
                stream=f"tenant/{tenant}",
                expected_version=expected_version,
            )

    written = with_installation(config, work)
    what = f"{unit} a {window} for {_name(tenant, scope, subject)}"
    tell(
        {
            "tenant": tenant,
            "scope": scope,
            "subject": subject,
            "unit": unit,
            "window": window,
            "changed": written.changed,
            "version": written.version,
        },
        json,
        f"removed the quota of {what}" if written.changed else f"there was no quota of {what}",
    )


@app.command("list")
def list_(
    tenant: Annotated[str | None, typer.Option(help="Only this tenant's.")] = None,
    wait: WaitOption = 60.0,
    json: JsonOption = False,
    config: ConfigOption = None,
) -> None:
    """List quotas and how they stand in their present windows, complete up to the log's head as of the call."""
    quotas = with_installation(config, lambda installation: read_standings(installation, tenant, wait))
    rows = [
        [q.tenant, q.id, q.used, q.reserved, q.limit, "yes" if q.hard else "", q.resets_at, q.state] for q in quotas
    ]
    show(quotas, json, ["tenant", "quota", "used", "reserved", "limit", "hard", "resets_at", "state"], rows)


@app.command("show")
def show_(
    quota: Annotated[str, typer.Argument(help="Its id among the tenant's, as `list` shows it: tenant/tokens/day.")],
    tenant: TenantOption,
    wait: WaitOption = 60.0,
    json: JsonOption = False,
    config: ConfigOption = None,
) -> None:
    """Show one quota and how it stands in its present window."""
    quotas = with_installation(config, lambda installation: read_standings(installation, tenant, wait))
    found = next((q for q in quotas if q.id == quota), None)
    if found is None:
        typer.echo(f"emberlog: tenant {tenant} has no quota {quota[:80]!r}: see `emberlog quotas list`", err=True)
        raise typer.Exit(1)
    import msgspec

    tell(found, json, *fields(msgspec.structs.asdict(found)))


async def read_standings(installation: Installation, tenant: str | None, wait: float) -> list[QuotaStanding]:
    """Quotas and how they stand, as of the head of the log; of one tenant or of all. Raises `Failed` after `wait` seconds."""
    import asyncio
    import time

    from projections.quota import QUOTA
    from projections.quota.query import read_quotas
    from projections.requests import REQUESTS
    from projections.runner import Runner

    if tenant is not None:
        await installation.require_tenant(tenant)
    head = await installation.log.head()
    # Where a gateway runs it owns the views and is only waited for; where none does, they are folded here.
    runner = Runner(installation.places.app_dsn, [QUOTA, REQUESTS], read=installation.log.read)
    await runner.start()
    try:
        await asyncio.gather(*(runner.wait_for(view.name, head, wait) for view in (QUOTA, REQUESTS)))
    except TimeoutError:
        raise Failed(f"after {wait:g} s the views are not at the log's head: give them longer with --wait") from None
    finally:
        await runner.stop()
    async with installation.control() as control:
        plane, found = control.plane, []
        for name in sorted(plane.quotas.tenants()) if tenant is None else [tenant]:
            zone = plane.tenants.of(name).settings.time_zone
            report = await read_quotas(installation.log.pool, plane.quotas, name, zone, at=time.time_ns() // 1000)
            found += report.quotas
        return found


def _name(tenant: str, scope: str, subject: str | None) -> str:
    return f"tenant {tenant}" if scope == "tenant" else f"{scope} {subject} of {tenant}"
