"""The command line, `emberlog`: each group of commands in a file of its own, imported when it is used."""

from __future__ import annotations

import typer

from gateway.cli.run import demo, serve

app = typer.Typer(name="emberlog", no_args_is_help=True, pretty_exceptions_enable=False, add_completion=False)
app.command()(serve)
app.command()(demo)


def main() -> None:
    """The console script."""
    app()
