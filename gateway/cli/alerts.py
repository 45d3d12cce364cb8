"""`emberlog alerts`: see what needs a person, and say what was done about it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Annotated, TypeVar

import typer

from gateway.cli.common import ConfigOption, Failed, JsonOption, parse_duration, show, tell, with_installation

if TYPE_CHECKING:
    from gateway.alerts.desk import AlertDesk, AlertDocument, FailureDocument, Take
    from gateway.manage import Installation

T = TypeVar("T")
app = typer.Typer(help="Alerts: quotas, budgets, prices, deprecations, failovers, views.", no_args_is_help=True)

IdArgument = Annotated[str, typer.Argument(metavar="ID", help="The alert's id, as `alerts list` shows it.")]


@app.command("list")
def list_(
    tenant: Annotated[
        str | None, typer.Option(help="Only this tenant's; those of the installation are of `_system`.")
    ] = None,
    state: Annotated[
        str | None,
        typer.Option(help="Only these: raised, acknowledged, silenced, resolved, or open (all but resolved)."),
    ] = None,
    kind: Annotated[str | None, typer.Option(help="Only this kind, such as quota_exceeded.")] = None,
    limit: Annotated[int, typer.Option(min=1, max=10_000, help="At most so many.")] = 1000,
    json: JsonOption = False,
    config: ConfigOption = None,
) -> None:
    """List alerts, the newest first; they are worked out anew before."""

    async def work(installation: Installation) -> list[AlertDocument]:
        if tenant not in (None, "_system"):
            assert tenant is not None
            await installation.require_tenant(tenant)
        return await _with_desk(installation, lambda desk, _: desk.alerts(tenant, state=state, kind=kind, limit=limit))

    found = with_installation(config, work)
    show(
        found, json, ["id", "tenant", "state", "severity", "kind", "raised", "summary"],
        [[a.id, a.tenant, a.state, a.severity, a.kind, a.raised_at, a.summary] for a in found],
    )  # fmt: skip


@app.command()
def acknowledge(alert: IdArgument, json: JsonOption = False, config: ConfigOption = None) -> None:
    """Say that somebody has seen it: it is not delivered again. Doing it again changes nothing."""

    async def work(installation: Installation) -> AlertDocument:
        return await _with_desk(
            installation, lambda desk, take: desk.acknowledge(take, None, alert, actor=installation.actor)
        )

    _told(with_installation(config, work), json)


@app.command()
def silence(
    alert: IdArgument,
    for_: Annotated[str, typer.Option("--for", help="How long: 90s, 15m, 12h, 30d; 0 ends a silence.")] = "1h",
    json: JsonOption = False,
    config: ConfigOption = None,
) -> None:
    """Deliver it to nobody for a while."""
    seconds = 0 if for_ == "0" else int(parse_duration(for_, "--for").total_seconds())

    async def work(installation: Installation) -> AlertDocument:
        return await _with_desk(
            installation, lambda desk, take: desk.silence(take, None, alert, seconds=seconds, actor=installation.actor)
        )

    _told(with_installation(config, work), json)


@app.command()
def resolve(alert: IdArgument, json: JsonOption = False, config: ConfigOption = None) -> None:
    """Close it by hand. What goes on is raised again after an hour; of a quota, when its limit has changed or in the next window."""

    async def work(installation: Installation) -> AlertDocument:
        return (await _with_desk(installation, lambda desk, _: desk.resolve(None, alert, actor=installation.actor)))[0]

    _told(with_installation(config, work), json)


@app.command()
def failures(json: JsonOption = False, config: ConfigOption = None) -> None:
    """List the tenants whose alerts cannot be worked out. One that is parked is tried again by `alerts retry` only."""

    async def work(installation: Installation) -> list[FailureDocument]:
        return await _with_desk(installation, lambda desk, _: desk.failures())

    found = with_installation(config, work)
    show(
        found, json, ["tenant", "failures", "parked", "failed", "retry", "error"],
        [[f.tenant, f.failures, "yes" if f.parked else "", f.failed_at, f.retry_at, f.error] for f in found],
    )  # fmt: skip


@app.command()
def retry(
    tenant: Annotated[str | None, typer.Option(help="Only this tenant's; without it those of all that failed.")] = None,
    json: JsonOption = False,
    config: ConfigOption = None,
) -> None:
    """Try to work out again what failed, the parked ones too."""

    async def work(installation: Installation) -> list[str]:
        return await _with_desk(installation, lambda desk, _: desk.retry(tenant))

    found = with_installation(config, work)
    tell({"tenants": found}, json, f"tried again: {', '.join(found) or 'there was nothing'}")


async def _with_desk(installation: Installation, work: Callable[[AlertDesk, Take], Awaitable[T]]) -> T:
    from gateway.alerts.command import open_desk

    try:
        async with open_desk(installation) as (desk, take):
            return await work(desk, take)
    except TimeoutError:
        raise Failed(
            "the views have not reached the log's head within a minute: see `emberlog projections list`"
        ) from None


def _told(alert: AlertDocument, json: bool) -> None:
    tell(alert, json, f"{alert.id} is {alert.state}: {alert.summary}")
