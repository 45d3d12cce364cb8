"""`emberlog models metrics`: how a model does."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Annotated

import typer

from gateway.cli.common import ConfigOption, JsonOption, fields, parse_time, tell, with_installation
from gateway.cli.views import WaitOption, caught_up

if TYPE_CHECKING:
    from gateway.manage import Installation
    from gateway.model_metrics import ModelMetrics


def metrics(
    model: Annotated[str, typer.Argument(metavar="MODEL", help="The model's id, or an alias of it.")],
    tenant: Annotated[str | None, typer.Option(help="Only what this tenant does with it.")] = None,
    since: Annotated[
        str | None, typer.Option("--from", help="From this minute on, ISO 8601; by default an hour before --to.")
    ] = None,
    until: Annotated[str | None, typer.Option("--to", help="Before this minute, ISO 8601; by default now.")] = None,
    wait: WaitOption = 60.0,
    json: JsonOption = False,
    config: ConfigOption = None,
) -> None:
    """Show latency, throughput, errors, tokens, cost, cache hits and open alerts of a model, up to the log's head as of the call."""
    last = parse_time(until, "--to") or datetime.now(UTC) + timedelta(minutes=1)
    first = parse_time(since, "--from") or last - timedelta(hours=1)
    first, last = first.replace(second=0, microsecond=0), last.replace(second=0, microsecond=0)
    if last <= first:
        raise typer.BadParameter("--to must be a minute later than --from, or more", param_hint="--to")

    async def work(installation: Installation) -> ModelMetrics:
        from domain.model_decisions import model_of
        from gateway.model_metrics import ModelMetrics, current_alerts, model_usage
        from projections.alerts import ALERTS
        from projections.alerts.query import read_alerts
        from projections.usage import USAGE
        from projections.usage.model import read_model_usage
        from projections.usage.query import utc_text

        if tenant is not None:
            await installation.require_tenant(tenant)
        async with installation.control() as control:
            found = model_of(control.plane, model).id
        await caught_up(installation, [USAGE, ALERTS], wait)
        pool = installation.log.pool
        alerts = await read_alerts(pool, tenants=None if tenant is None else [tenant], still_open=True)
        return ModelMetrics(
            model=found,
            since=utc_text(first) or "",
            until=utc_text(last) or "",
            usage=model_usage(await read_model_usage(pool, found, first, last, tenant), (last - first).total_seconds()),
            alerts=current_alerts(alerts, found),
            degraded=[],
        )

    import msgspec

    found = with_installation(config, work)
    tell(found, json, *fields(msgspec.to_builtins(found)))
