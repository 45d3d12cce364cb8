"""`emberlog log`: the log as a whole."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import typer

from gateway.cli import events
from gateway.cli.common import ConfigOption, JsonOption, fields, tell, with_installation
from gateway.cli.log_archive import archive
from gateway.cli.log_copy import export, import_
from gateway.cli.log_restored import restored
from gateway.cli.log_show import show_event
from gateway.cli.log_verify import verify

if TYPE_CHECKING:
    from gateway.manage import Installation

app = typer.Typer(help="The event log as a whole.", no_args_is_help=True)
app.command("tail")(events.tail)
app.command("show")(show_event)
app.command()(verify)
app.command()(archive)
app.command()(export)
app.command("import")(import_)
app.command()(restored)


@app.command()
def head(json: JsonOption = False, config: ConfigOption = None) -> None:
    """The position and time of the newest event, the cursor behind it, the newest seal, and which log this is.

    Note the seal's hash where nobody who can change the database can change it: `emberlog log verify --seal HASH` asks for it.
    """

    async def work(installation: Installation) -> dict[str, Any]:
        from adapters.postgres.seals import newest_seal
        from domain.cursor import encode_cursor
        from gateway.event_document import time_text

        identity = await installation.log.identity()
        position = await installation.log.head()
        newest = await installation.log.read(position - 1, 1) if position else []
        seal = await newest_seal(installation.log.pool)
        return {
            "position": position,
            "recorded_at": time_text(newest[0].recorded_at) if newest else None,
            "cursor": encode_cursor(identity.incarnation, position),
            "seal": seal and {"number": seal.number, "last_position": seal.last_position, "hash": seal.hash.hex()},
            "installation": str(identity.installation),
            "incarnation": str(identity.incarnation),
        }

    found = with_installation(config, work)
    tell(found, json, *fields(found))
