"""`emberlog log`: the log as a whole."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import typer

from gateway.cli.common import ConfigOption, JsonOption, show, with_installation

if TYPE_CHECKING:
    from gateway.manage import Installation

app = typer.Typer(help="The event log as a whole.", no_args_is_help=True)


@app.command()
def head(json: JsonOption = False, config: ConfigOption = None) -> None:
    """The position and time of the newest event, the cursor behind it, and which log this is."""

    async def work(installation: Installation) -> dict[str, Any]:
        from domain.cursor import encode_cursor
        from gateway.manage import time_text

        identity = await installation.log.identity()
        position = await installation.log.head()
        newest = await installation.log.read(position - 1, 1) if position else []
        return {
            "position": position,
            "recorded_at": time_text(newest[0].recorded_at) if newest else None,
            "cursor": encode_cursor(identity.incarnation, position),
            "installation": str(identity.installation),
            "incarnation": str(identity.incarnation),
        }

    found = with_installation(config, work)
    show(found, json, ["", ""], found.items())
