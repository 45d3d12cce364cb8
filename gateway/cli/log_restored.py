"""`emberlog log restored`: what has to be done once after a restore from a backup."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from gateway.cli.common import ConfigOption, JsonOption, LedgerOption, execute, tell

if TYPE_CHECKING:
    from gateway.restored import Restored
    from gateway.settings import Settings


def restored(
    dump: Annotated[
        Path | None, typer.Option("--dump", help="First read this pg_dump (--format=custom) into a new data folder.")
    ] = None,
    ledger: LedgerOption = None,
    json: JsonOption = False,
    config: ConfigOption = None,
) -> None:
    """Make a database that was restored from a backup fit to serve. Run it before the first gateway starts on it.

    Cursors of before are refused from here on; tenants that were shredded since the backup are shredded again, by the ledger. Refused
    while a gateway runs. Needs the owner's login. Stopped at any point, run it again, without --dump once that was read.
    """
    for file in (dump, ledger):
        if file is not None and not file.is_file():
            raise typer.BadParameter(f"there is no file {file}", param_hint="--dump" if file is dump else "--ledger")

    async def work(settings: Settings) -> Restored:
        from gateway.manage import open_installation
        from gateway.restore_dump import restore_dump
        from gateway.restored import restored

        if dump is not None:
            await restore_dump(settings, dump)
        async with open_installation(settings) as installation:
            return await restored(installation, installation.ledger(ledger))

    done = execute(config, work)
    said = [
        f"this log is of the incarnation {done.incarnation} now; cursors of {done.previous} are refused",
        f"its newest event is at position {done.head}; {done.fenced} instances of before were fenced",
        f"shredded again: {', '.join(done.shredded) or 'none'}",
    ]
    if not done.ledger:
        said.append("there is no shred ledger: if a tenant was ever shredded, put its copy back and run this again")
    if not done.wiped:
        said.append("dead rows of emberlog.tenant_keys may still hold destroyed keys: run this again")
    tell(done, json, *said)
