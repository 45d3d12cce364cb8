"""`emberlog usage`: what was used and charged, by bucket, tenant, agent, model and provider."""

from __future__ import annotations

from enum import StrEnum
from typing import TYPE_CHECKING, Annotated

import typer

from gateway.cli.common import ConfigOption, Failed, JsonOption, parse_place, parse_time, show, with_installation
from gateway.cli.progress import progress

if TYPE_CHECKING:
    from datetime import datetime

    from gateway.manage import Installation
    from projections.usage.query import UsageReport

_SHOWN = (
    "bucket",
    "tenant",
    "agent",
    "model",
    "provider",
    "requests",
    "failed",
    "inputs",
    "tokens",
    "billed_tokens",
    "nano_usd",
    "unpriced",
)


class Grain(StrEnum):
    """The length of a bucket."""

    MINUTE = "minute"
    HOUR = "hour"
    DAY = "day"


def usage(
    tenant: Annotated[str | None, typer.Option(help="Only this tenant's usage.")] = None,
    grain: Annotated[Grain, typer.Option(help="The length of a bucket, in UTC.")] = Grain.DAY,
    since: Annotated[
        str | None, typer.Option("--from", help="From the bucket that holds this time on, ISO 8601.")
    ] = None,
    until: Annotated[str | None, typer.Option("--to", help="Buckets that begin before this time, ISO 8601.")] = None,
    as_of: Annotated[
        str | None, typer.Option(help="A position, or a time (ISO 8601): usage as it stood then, folded anew.")
    ] = None,
    wait: Annotated[float, typer.Option(min=0.1, help="Seconds to wait for the view to reach the log's head.")] = 60.0,
    json: JsonOption = False,
    config: ConfigOption = None,
) -> None:
    """Usage and cost, complete up to the log's head as of the call, or as of a place in the past."""
    first, last = parse_time(since, "--from"), parse_time(until, "--to")
    if first is not None and last is not None and last <= first:
        raise typer.BadParameter("--to must be later than --from", param_hint="--to")
    place = None if as_of is None else parse_place(as_of, "--as-of")

    async def work(installation: Installation) -> UsageReport:
        from projections.runner import Runner
        from projections.usage import USAGE
        from projections.usage.query import read_usage

        if tenant is not None:
            await installation.require_tenant(tenant)
        if place is not None:
            return await past(installation, place)
        head = await installation.log.head()
        # Where a gateway runs it owns the view and is only waited for; where none does, the view is folded here.
        runner = Runner(installation.places.app_dsn, [USAGE], read=installation.log.read)
        await runner.start()
        try:
            await runner.wait_for(USAGE.name, head, wait)
        except TimeoutError:
            seen = runner.standing(USAGE.name)
            raise Failed(
                f"after {wait:g} s the usage view is at position {seen.position if seen else 'unknown'} of {head}: give it longer with --wait"
            ) from None
        finally:
            await runner.stop()
        return await read_usage(installation.log.pool, grain=grain.value, tenant=tenant, since=first, until=last)

    async def past(installation: Installation, place: int | datetime) -> UsageReport:
        from gateway.cli.past import fold_past
        from projections.connect import connect
        from projections.usage import USAGE
        from projections.usage.query import read_usage_as_of

        connection = await connect(installation.places.app_dsn, "usage as of", bulk=True)
        try:
            with progress("folding usage", quiet=json) as advance:
                seen = await fold_past(installation, connection, USAGE, place, advance)
            return await read_usage_as_of(
                connection, seen.table, seen.position, seen.time, grain=grain.value, tenant=tenant, since=first, until=last
            )  # fmt: skip
        finally:
            connection.terminate()

    report = with_installation(config, work)
    document = {"usage": report.rows, "complete_to": {"time": report.time, "position": report.position}}
    show(document, json, _SHOWN, ([row[name] for name in _SHOWN] for row in report.rows))
