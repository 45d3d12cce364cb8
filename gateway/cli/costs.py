"""`emberlog costs`: what was charged, by hour, day or month."""

from __future__ import annotations

from enum import StrEnum
from typing import TYPE_CHECKING, Annotated

import typer

from gateway.cli.common import ConfigOption, Failed, JsonOption, parse_time, show, split_list, with_installation

if TYPE_CHECKING:
    from gateway.manage import Installation
    from projections.cost.query import CostReport

_GROUPS = ("tenant", "agent", "model", "provider")
_SHOWN = ("requests", "tokens", "billed_tokens", "characters", "nano_usd", "unpriced", "provider_nano_usd")


class Grain(StrEnum):
    """The length of a bucket."""

    HOUR = "hour"
    DAY = "day"
    MONTH = "month"


def costs(
    tenant: Annotated[str | None, typer.Option(help="Only this tenant's costs.")] = None,
    agent: Annotated[str | None, typer.Option(help="Only this agent's.")] = None,
    model: Annotated[str | None, typer.Option(help="Only this model's.")] = None,
    provider: Annotated[str | None, typer.Option(help="Only this provider's.")] = None,
    grain: Annotated[Grain, typer.Option(help="The length of a bucket, in UTC.")] = Grain.DAY,
    group_by: Annotated[str, typer.Option(help=f"Comma-separated: some of {', '.join(_GROUPS)}.")] = "tenant,model",
    since: Annotated[
        str | None, typer.Option("--from", help="From the bucket that holds this time on, ISO 8601.")
    ] = None,
    until: Annotated[str | None, typer.Option("--to", help="Buckets that begin before this time, ISO 8601.")] = None,
    wait: Annotated[float, typer.Option(min=0.1, help="Seconds to wait for the view to reach the log's head.")] = 60.0,
    json: JsonOption = False,
    config: ConfigOption = None,
) -> None:
    """What tenants were charged and what providers charge, complete up to the log's head as of the call."""
    first, last = parse_time(since, "--from"), parse_time(until, "--to")
    if first is not None and last is not None and last <= first:
        raise typer.BadParameter("--to must be later than --from", param_hint="--to")
    by = split_list(group_by)
    if unknown := [name for name in by if name not in _GROUPS]:
        raise typer.BadParameter(f"{unknown[0][:40]!r} is none of {', '.join(_GROUPS)}", param_hint="--group-by")

    async def work(installation: Installation) -> CostReport:
        from projections.cost import COST
        from projections.cost.query import read_costs
        from projections.runner import Runner

        if tenant is not None:
            await installation.require_tenant(tenant)
        head = await installation.log.head()
        # Where a gateway runs it owns the view and is only waited for; where none does, the view is folded here.
        runner = Runner(installation.places.app_dsn, [COST], read=installation.log.read)
        await runner.start()
        try:
            await runner.wait_for(COST.name, head, wait)
        except TimeoutError:
            seen = runner.standing(COST.name)
            raise Failed(
                f"after {wait:g} s the cost view is at position {seen.position if seen else 'unknown'} of {head}: give it longer with --wait"
            ) from None
        finally:
            await runner.stop()
        return await read_costs(
            installation.log.pool,
            grain=grain.value,
            by=("bucket", *by),
            tenant=tenant,
            since=first,
            until=last,
            agent=agent,
            model=model,
            provider=provider,
        )

    report = with_installation(config, work)
    columns = ("bucket", *(name for name in _GROUPS if name in by), *_SHOWN)
    document = {"costs": report.rows, "complete_to": {"time": report.time, "position": report.position}}
    show(document, json, columns, ([row[name] for name in columns] for row in report.rows))
