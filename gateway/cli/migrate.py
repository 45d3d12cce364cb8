"""`emberlog migrate`: bring the database's schema to this release's."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from gateway.cli.common import ConfigOption, JsonOption, execute, tell

if TYPE_CHECKING:
    from adapters.postgres.migrator import SchemaState
    from gateway.settings import Settings

AfterOption = Annotated[
    bool,
    typer.Option(
        "--after", help="Also what ends an upgrade: only when no gateway of the previous release runs any more."
    ),
]


def migrate(after: AfterOption = False, json: JsonOption = False, config: ConfigOption = None) -> None:
    """Apply the migrations that the database lacks, as its owner (EMBERLOG_DATABASE_OWNER_URL, else EMBERLOG_DATABASE_URL).

    Gateways of the previous release go on working, unless --after is given.
    """

    async def work(settings: Settings) -> tuple[list[str], SchemaState]:
        from adapters.postgres.migrator import migrate as apply
        from adapters.postgres.migrator import schema_state
        from gateway.manage import open_places

        async with open_places(settings, migrated=False) as (places, temporary):
            # A database that runs for this command only has no gateway.
            applied = await apply(places.owner_dsn, after=after or temporary)
            return applied, await schema_state(places.owner_dsn)

    applied, state = execute(config, work)
    pending = state.after_deploy_pending
    lines = [f"applied {name}" for name in applied] or [f"nothing to do: {state.message}"]
    if pending:
        lines.append(
            f"left for the end of the upgrade: {', '.join(pending)}. When no gateway of the previous release runs any more, run "
            "`emberlog migrate --after`"
        )
    tell({"applied": applied, "after_deploy_pending": pending}, json, *lines)
