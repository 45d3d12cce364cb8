"""`emberlog rate-limits`: set, remove and list what a tenant, a key, an agent or a thread may send a minute."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from gateway.cli.common import ConfigOption, JsonOption, TenantVersionOption, show, tell, with_installation

if TYPE_CHECKING:
    from domain.events import RateLimitSet
    from gateway.control import Written
    from gateway.manage import Installation

app = typer.Typer(help="Rate limits of tenants, keys, agents and threads.", no_args_is_help=True)

TenantOption = Annotated[str, typer.Option(help="The tenant.")]
ScopeOption = Annotated[str, typer.Option(help="What it limits: tenant, key, agent or thread.")]
SubjectOption = Annotated[
    str | None, typer.Option(help="Which key, agent or thread; without it each one that has no limit of its own.")
]


@app.command("set")
def set_(
    tenant: TenantOption,
    scope: ScopeOption,
    subject: SubjectOption = None,
    requests_per_minute: Annotated[int | None, typer.Option(help="Requests a minute; without it no limit.")] = None,
    tokens_per_minute: Annotated[int | None, typer.Option(help="Tokens a minute; without it no limit.")] = None,
    expected_version: TenantVersionOption = None,
    json: JsonOption = False,
    config: ConfigOption = None,
) -> None:
    """Set a limit, whole: what is not given is not limited any more. It is in force in every running gateway within a second."""

    async def work(installation: Installation) -> Written:
        from domain.rate_limits import decide_set_rate_limit

        async with installation.control() as control:
            return await control.run(
                lambda plane: decide_set_rate_limit(
                    plane,
                    tenant,
                    scope=scope,
                    subject=subject,
                    requests_per_minute=requests_per_minute,
                    tokens_per_minute=tokens_per_minute,
                    operator=True,
                    actor=installation.actor,
                ),
                stream=f"tenant/{tenant}",
                expected_version=expected_version,
            )

    written = with_installation(config, work)
    tell(
        {"tenant": tenant, "scope": scope, "subject": subject, "changed": written.changed, "version": written.version},
        json,
        f"set the rate limit of {_name(tenant, scope, subject)}" if written.changed else "it was so already",
    )


@app.command()
def remove(
    tenant: TenantOption,
    scope: ScopeOption,
    subject: SubjectOption = None,
    expected_version: TenantVersionOption = None,
    json: JsonOption = False,
    config: ConfigOption = None,
) -> None:
    """Remove a limit. A key, agent or thread without one of its own has that for each one again, where there is one."""

    async def work(installation: Installation) -> Written:
        from domain.rate_limits import decide_remove_rate_limit

        async with installation.control() as control:
            return await control.run(
                lambda plane: decide_remove_rate_limit(
                    plane, tenant, scope=scope, subject=subject, operator=True, actor=installation.actor
                ),
                stream=f"tenant/{tenant}",
                expected_version=expected_version,
            )

    written = with_installation(config, work)
    what = _name(tenant, scope, subject)
    tell(
        {"tenant": tenant, "scope": scope, "subject": subject, "changed": written.changed, "version": written.version},
        json,
        f"removed the rate limit of {what}" if written.changed else f"there was none of {what}",
    )


@app.command("list")
def list_(tenant: TenantOption, json: JsonOption = False, config: ConfigOption = None) -> None:
    """List a tenant's limits; where none is listed, none applies."""

    async def work(installation: Installation) -> list[RateLimitSet]:
        from domain.rate_limits import in_order

        await installation.require_tenant(tenant)
        async with installation.control() as control:
            return in_order(control.plane.rate_limits.of(tenant) or {})

    limits = with_installation(config, work)
    rows: list[dict[str, Any]] = [
        {
            "id": "/".join(filter(None, (limit.scope, limit.subject))),
            "scope": limit.scope,
            "subject": limit.subject,
            "requests_per_minute": limit.requests_per_minute,
            "tokens_per_minute": limit.tokens_per_minute,
        }
        for limit in limits
    ]
    columns = ["scope", "subject", "requests/min", "tokens/min"]
    table = [["" if r["scope"] == "tenant" else r["subject"] or "(each)", *list(r.values())[3:]] for r in rows]
    show(rows, json, columns, [[r["scope"], *cells] for r, cells in zip(rows, table, strict=True)])


def _name(tenant: str, scope: str, subject: str | None) -> str:
    if scope == "tenant":
        return f"tenant {tenant}"
    return f"{scope} {subject} of {tenant}" if subject is not None else f"each {scope} of {tenant}"
