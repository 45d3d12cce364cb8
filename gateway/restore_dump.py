"""Reading a dump into a new data folder, whose Postgres nobody runs but the command itself."""

from __future__ import annotations

import asyncio
from asyncio.subprocess import DEVNULL, PIPE
from pathlib import Path

from adapters.embedded.binaries import postgres_bin
from adapters.postgres.pool import APPLICATION_ROLE, connect
from gateway.house import NotReady
from gateway.manage import open_places
from gateway.settings import Settings


async def restore_dump(settings: Settings, dump: Path) -> None:
    """Read the dump of `pg_dump --format=custom` into the folder's empty database, whole or not at all. Raises `NotReady`."""
    if not settings.embedded_postgres:
        raise NotReady("--dump is for the embedded Postgres: read it into a database of your own with pg_restore")
    async with open_places(settings, migrated=False) as (places, temporary):
        if not temporary:
            raise NotReady(f"a gateway runs on {settings.data_dir}: stop it, and restore into a new data folder")
        owner = await connect(places.owner_dsn, "restore", role=False)
        try:
            if await owner.fetchval("SELECT to_regnamespace('emberlog') IS NOT NULL"):
                raise NotReady(
                    f"{settings.data_dir} has a log already: if an earlier run read this dump, run it again without --dump; else set "
                    "EMBERLOG_DATA_DIR to a new folder"
                )
            # A dump of a database holds no roles.
            if not await owner.fetchval("SELECT to_regrole($1) IS NOT NULL", APPLICATION_ROLE):
                await owner.execute(f"CREATE ROLE {APPLICATION_ROLE} NOLOGIN")
        finally:
            await owner.close()
        await _pg_restore(places.owner_dsn, dump)


async def _pg_restore(dsn: str, dump: Path) -> None:
    process = await asyncio.create_subprocess_exec(
        str(postgres_bin() / "pg_restore"), "--single-transaction", "--exit-on-error", f"--dbname={dsn}", str(dump),
        stdin=DEVNULL, stdout=DEVNULL, stderr=PIPE,
    )  # fmt: skip
    try:
        _, said = await process.communicate()
    except BaseException:
        process.kill()
        await process.wait()
        raise
    if process.returncode != 0:
        first = said.decode(errors="replace").strip().partition("\n")[0]
        raise NotReady(f"the dump {dump} could not be read, and nothing of it was: {first}")
