"""`emberlog migrate`: bring the database's schema to this release's."""

from __future__ import annotations

from typing import TYPE_CHECKING

from gateway.cli.common import ConfigOption, JsonOption, execute, tell

if TYPE_CHECKING:
    from gateway.settings import Settings


def migrate(json: JsonOption = False, config: ConfigOption = None) -> None:
    """Apply the migrations that the database lacks, as its owner (EMBERLOG_DATABASE_OWNER_URL, else EMBERLOG_DATABASE_URL)."""

    async def work(settings: Settings) -> list[str]:
        from adapters.postgres.migrator import migrate as apply
        from gateway.manage import open_places

        async with open_places(settings, migrated=False) as (places, _):
            return await apply(places.owner_dsn)

    applied = execute(config, work)
    tell(
        {"applied": applied},
        json,
        *([f"applied {name}" for name in applied] or ["nothing to do: the schema is current"]),
    )
