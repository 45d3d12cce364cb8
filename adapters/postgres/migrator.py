"""Migrations: numbered plain SQL, each applied once, in the order of the numbers, in a transaction of its own, and never edited.

Those in `migrations/` leave gateways of the previous release working and are applied before a release is deployed; those in
`migrations/after/` are applied when none of its gateways is left. `docs/upgrading.md` is the runbook.
"""

from __future__ import annotations

import asyncio
import hashlib
from enum import StrEnum
from importlib.resources import files

import asyncpg
import msgspec

from adapters.postgres.pool import Connection, Pool, connect
from adapters.postgres.statements import statement

MINIMUM_VERSION = 16
LOCK_SECONDS = 2.0
"""How long a migration waits for a table that is in use: whoever comes later, gateways among them, waits behind it."""
LOCK_TRIES = 30
PAUSE_SECONDS = 1.0
"""Between two tries."""
_LOCK = 4993438714461021448


class MigrationError(Exception):
    """The database cannot be migrated; the message says why and what to do."""


class Migration(msgspec.Struct, frozen=True):
    """A file of `migrations/`, or, if `after_deploy`, of `migrations/after/`. `checksum` is the SHA-256 of its text."""

    name: str
    sql: str
    checksum: bytes
    after_deploy: bool = False


class _Applied(msgspec.Struct, frozen=True):
    checksum: bytes
    after_deploy: bool


class SchemaStatus(StrEnum):
    """How a database stands to this build's migrations."""

    CURRENT = "current"
    NEWER = "newer"
    """The database has migrations of a later release (`names`), all of the kind that leaves this one working."""
    BEHIND = "behind"
    """Some of this build's migrations that come before its deploy are not applied (`names`)."""
    AHEAD = "ahead"
    """A later release has finished its upgrade (`names`): this build cannot work here any more."""
    EDITED = "edited"
    """Applied migrations differ from this build's files (`names`)."""


class SchemaState(msgspec.Struct, frozen=True):
    """The status and the migrations it is about. `after_deploy_pending` are those of this build that wait for its upgrade's end."""

    status: SchemaStatus
    names: tuple[str, ...] = ()
    after_deploy_pending: tuple[str, ...] = ()

    @property
    def serves(self) -> bool:
        """Whether a gateway of this build can work on the database."""
        return self.status in (SchemaStatus.CURRENT, SchemaStatus.NEWER)

    @property
    def message(self) -> str:
        """What is the matter and what to run."""
        listed = ", ".join(self.names)
        match self.status:
            case SchemaStatus.CURRENT:
                return "the database's schema is current"
            case SchemaStatus.NEWER:
                return f"the database's schema is that of a newer release ({listed}), which this build still works with"
            case SchemaStatus.BEHIND:
                return f"the database's schema is older than this build, which needs {listed}: run `emberlog migrate`"
            case SchemaStatus.AHEAD:
                return f"the database's schema is newer than this build, which cannot work with {listed}: install the newer release"
            case SchemaStatus.EDITED:
                return (
                    f"applied migrations differ from this build's files: {listed}. An applied migration is never edited: restore the "
                    "file and put the change into a new migration, then run `emberlog migrate`"
                )


def load_migrations() -> list[Migration]:
    """The migrations of this build, in order."""
    found = []
    for folder, after_deploy in ((files("migrations"), False), (files("migrations") / "after", True)):
        for path in folder.iterdir():
            if path.name.endswith(".sql"):
                text = path.read_text("utf-8")
                checksum = hashlib.sha256(text.encode()).digest()
                found.append(Migration(path.name.removesuffix(".sql"), text, checksum, after_deploy))
    return sorted(found, key=lambda migration: migration.name)


async def migrate(
    owner_dsn: str,
    *,
    after: bool = False,
    migrations: list[Migration] | None = None,
    partition_width: int | None = None,
) -> list[str]:
    """Apply what is missing and make the partitions needed next; returns the names applied. Safe to run at once from many hosts.

    Those of after the deploy are applied only if `after`, or to an empty database, which no gateway uses yet. `owner_dsn` logs in as
    the schema's owner. `partition_width` is in positions (default ten million). Raises `MigrationError`.
    """
    wanted = load_migrations() if migrations is None else migrations
    connection = await connect(owner_dsn, "migrate", role=False, statement_timeout=0)
    try:
        _check_version(connection)
        await connection.execute("SELECT pg_advisory_lock($1)", _LOCK)
        await connection.execute(statement("schema_migrations"))
        applied = await _applied(connection)
        state = _state(wanted, applied)
        if state.status in (SchemaStatus.AHEAD, SchemaStatus.EDITED):
            raise MigrationError(state.message)
        missing = [migration for migration in wanted if migration.name not in applied]
        if applied and not after:
            missing = _before_deploy(missing)
        for migration in missing:
            await _apply(connection, migration)
        await connection.execute("SELECT emberlog.ensure_partitions($1)", partition_width)
        return [migration.name for migration in missing]
    finally:
        await connection.close()


def _before_deploy(missing: list[Migration]) -> list[Migration]:
    """Those that may be applied while gateways of the previous release run. Raises `MigrationError` where another must come first."""
    before = [migration for migration in missing if not migration.after_deploy]
    if before and (first := [m.name for m in missing if m.after_deploy and m.name < before[-1].name]):
        raise MigrationError(
            f"an earlier upgrade was not finished: {', '.join(first)} must be applied before {before[-1].name}. When no gateway of "
            "a release before this one runs any more, run `emberlog migrate --after`"
        )
    return before


async def schema_state(dsn: str) -> SchemaState:
    """How the database stands to this build. Raises `MigrationError` for a Postgres that is too old."""
    connection = await connect(dsn, "schema check", role=False)
    try:
        _check_version(connection)
        return _state(load_migrations(), await _applied(connection))
    finally:
        await connection.close()


async def pooled_schema_state(pool: Pool) -> SchemaState:
    """The same over the pool of a running gateway. Raises what the pool raises."""
    return _state(load_migrations(), await _applied(pool))


def _check_version(connection: Connection) -> None:
    major = connection.get_server_version().major
    if major < MINIMUM_VERSION:
        raise MigrationError(f"this is PostgreSQL {major}: {MINIMUM_VERSION} or newer is needed")


async def _applied(connection: Connection | Pool) -> dict[str, _Applied]:
    try:
        rows = await connection.fetch(statement("applied_migrations"))
    except (asyncpg.UndefinedTableError, asyncpg.InvalidSchemaNameError):
        return {}
    except asyncpg.InsufficientPrivilegeError as error:
        raise MigrationError(
            "the database login may not read emberlog.schema_migrations: as its owner run GRANT emberlog_app TO this login"
        ) from error
    return {row["name"]: _Applied(row["checksum"], row["after_deploy"]) for row in rows}


def _state(wanted: list[Migration], applied: dict[str, _Applied]) -> SchemaState:
    known = {migration.name: migration.checksum for migration in wanted}
    unknown = sorted(applied.keys() - known.keys())
    missing = [migration for migration in wanted if migration.name not in applied]
    if finished := tuple(name for name in unknown if applied[name].after_deploy):
        return SchemaState(SchemaStatus.AHEAD, finished)
    if edited := tuple(name for name in applied if name in known and known[name] != applied[name].checksum):
        return SchemaState(SchemaStatus.EDITED, edited)
    pending = tuple(migration.name for migration in missing if migration.after_deploy)
    if lacking := tuple(migration.name for migration in missing if not migration.after_deploy):
        return SchemaState(SchemaStatus.BEHIND, lacking, pending)
    if unknown:
        return SchemaState(SchemaStatus.NEWER, tuple(unknown), pending)
    return SchemaState(SchemaStatus.CURRENT, (), pending)


async def _apply(connection: Connection, migration: Migration) -> None:
    """Apply one, in a transaction. A table in use is waited for in short turns, between which the work of gateways goes on."""
    for turn in range(1, LOCK_TRIES + 1):
        try:
            await _apply_at_once(connection, migration)
        except asyncpg.LockNotAvailableError as error:
            if turn == LOCK_TRIES:
                raise MigrationError(
                    f"migration {migration.name} was rolled back: a table that it changes was in use in all of {LOCK_TRIES} tries. End "
                    "what holds it (a dump, a report, an open transaction: see pg_stat_activity) and run `emberlog migrate` again"
                ) from error
            await asyncio.sleep(PAUSE_SECONDS)
        else:
            return


async def _apply_at_once(connection: Connection, migration: Migration) -> None:
    try:
        async with connection.transaction():
            await connection.execute(f"SET LOCAL lock_timeout = '{int(LOCK_SECONDS * 1000)}ms'")
            await connection.execute(migration.sql)
            await connection.execute(
                "INSERT INTO emberlog.schema_migrations (name, checksum, after_deploy) VALUES ($1, $2, $3)",
                migration.name,
                migration.checksum,
                migration.after_deploy,
            )
    except asyncpg.LockNotAvailableError:
        raise
    except asyncpg.PostgresError as error:
        hint = f" ({error.hint})" if isinstance(error.hint, str) else ""
        raise MigrationError(f"migration {migration.name} failed and was rolled back: {error}{hint}") from error
