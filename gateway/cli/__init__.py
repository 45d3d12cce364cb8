"""The command line, `emberlog`: each group of commands in a file of its own, imported when it is used."""

from __future__ import annotations

from typing import Annotated

import typer

from gateway.cli import (
    agents,
    alerts,
    bench,
    collections,
    credentials,
    endpoints,
    events,
    keys,
    log,
    models,
    prices,
    projections,
    quotas,
    rate_limits,
    schedules,
    settings,
    tenant_models,
    tenants,
    threads,
    webhooks,
)
from gateway.cli.costs import costs
from gateway.cli.migrate import migrate
from gateway.cli.run import demo, serve
from gateway.cli.usage import usage
from gateway.version import server_version

app = typer.Typer(
    name="emberlog",
    help="An event-sourced embedding gateway: `emberlog demo` shows it, `emberlog serve` runs it.",
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    add_completion=False,
)


def _show_version(wanted: bool) -> None:
    if wanted:
        print(server_version())
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", help="Show the version and exit.", is_eager=True, callback=_show_version)
    ] = False,
) -> None: ...


app.command()(serve)
app.command()(demo)
app.add_typer(bench.app, name="bench")
app.command()(migrate)
app.add_typer(alerts.app, name="alerts")
app.add_typer(tenants.app, name="tenants")
app.add_typer(keys.app, name="keys")
app.command()(usage)
app.command()(costs)
app.add_typer(collections.app, name="collections")
app.add_typer(credentials.app, name="credentials")
app.add_typer(endpoints.app, name="endpoints")
app.add_typer(events.app, name="events")
app.add_typer(log.app, name="log")
app.add_typer(models.app, name="models")
app.add_typer(tenant_models.app, name="tenant-models")
app.add_typer(agents.app, name="agents")
app.add_typer(prices.app, name="prices")
app.add_typer(projections.app, name="projections")
app.add_typer(quotas.app, name="quotas")
app.add_typer(rate_limits.app, name="rate-limits")
app.add_typer(schedules.app, name="schedules")
app.add_typer(settings.app, name="settings")
app.add_typer(threads.app, name="threads")
app.add_typer(webhooks.app, name="webhooks")


def main() -> None:
    """The console script."""
    app()
