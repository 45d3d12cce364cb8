"""Migrations: numbered plain SQL, each applied once, in order, in a transaction of its own, and never edited afterwards."""

from __future__ import annotations

import hashlib
from enum import StrEnum
from importlib.resources import files

import asyncpg
import msgspec

from adapters.postgres.pool import Connection, Pool, connect
from adapters.postgres.statements import statement

MINIMUM_VERSION = 16
_LOCK = 4993438714461021448


class MigrationError(Exception):
    """The database cannot be migrated; the message says why and what to do."""


class Migration(msgspec.Struct, frozen=True):
    """A file of `migrations/`. `checksum` is the SHA-256 of its text."""

    name: str
    sql: str
    checksum: bytes


class SchemaStatus(StrEnum):
    """How a database stands to this build's migrations."""

    CURRENT = "current"
    BEHIND = "behind"
    """Some of this build's migrations are not applied (`names`)."""
    AHEAD = "ahead"
    """The database has migrations that this build does not know (`names`)."""
    EDITED = "edited"
    """Applied migrations differ from this build's files (`names`)."""


class SchemaState(msgspec.Struct, frozen=True):
    """The status and the migrations it is about."""

    status: SchemaStatus
    names: tuple[str, ...] = ()

    @property
    def message(self) -> str:
        """What is the matter and what to run."""
        listed = ", ".join(self.names)
        match self.status:
            case SchemaStatus.CURRENT:
                return "the database's schema is current"
            case SchemaStatus.BEHIND:
                return f"the database's schema is older than this build, which needs {listed}: run `emberlog migrate`"
            case SchemaStatus.AHEAD:
                return f"the database's schema is newer than this build, which does not know {listed}: install the newer release"
            case SchemaStatus.EDITED:
                return (
                    f"applied migrations differ from this build's files: {listed}. An applied migration is never edited: restore the "
                    "file and put the change into a new migration, then run `emberlog migrate`"
                )


def load_migrations() -> list[Migration]:
    """The migrations of this build, in order."""
    found = []
    for path in files("migrations").iterdir():
        if path.name.endswith(".sql"):
            text = path.read_text("utf-8")
            found.append(Migration(path.name.removesuffix(".sql"), text, hashlib.sha256(text.encode()).digest()))
    return sorted(found, key=lambda migration: migration.name)


async def migrate(
    owner_dsn: str, *, migrations: list[Migration] | None = None, partition_width: int | None = None
) -> list[str]:
    """Apply what is missing and make the partitions needed next; returns the names applied. Safe to run at once from many hosts.

    `owner_dsn` logs in as the schema's owner. `partition_width` is in positions (default ten million). Raises `MigrationError`.
    """
    wanted = load_migrations() if migrations is None else migrations
    connection = await connect(owner_dsn, "migrate", role=False, statement_timeout=0)
    try:
        _check_version(connection)
        await connection.execute("SELECT pg_advisory_lock($1)", _LOCK)
        await connection.execute(statement("schema_migrations"))
        state = _state(wanted, await _applied(connection))
        if state.status in (SchemaStatus.AHEAD, SchemaStatus.EDITED):
            raise MigrationError(state.message)
        missing = [migration for migration in wanted if migration.name in state.names]
        for migration in missing:
            await _apply(connection, migration)
        await connection.execute("SELECT emberlog.ensure_partitions($1)", partition_width)
        return [migration.name for migration in missing]
    finally:
        await connection.close()


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


async def _applied(connection: Connection | Pool) -> dict[str, bytes]:
    try:
        rows = await connection.fetch("SELECT name, checksum FROM emberlog.schema_migrations ORDER BY name")
    except (asyncpg.UndefinedTableError, asyncpg.InvalidSchemaNameError):
        return {}
    except asyncpg.InsufficientPrivilegeError as error:
        raise MigrationError(
            "the database login may not read emberlog.schema_migrations: as its owner run GRANT emberlog_app TO this login"
        ) from error
    return {row["name"]: row["checksum"] for row in rows}


def _state(wanted: list[Migration], applied: dict[str, bytes]) -> SchemaState:
    known = {migration.name: migration.checksum for migration in wanted}
    if unknown := tuple(sorted(applied.keys() - known.keys())):
        return SchemaState(SchemaStatus.AHEAD, unknown)
    if edited := tuple(name for name, checksum in applied.items() if known[name] != checksum):
        return SchemaState(SchemaStatus.EDITED, edited)
    if missing := tuple(name for name in known if name not in applied):
        return SchemaState(SchemaStatus.BEHIND, missing)
    return SchemaState(SchemaStatus.CURRENT)


async def _apply(connection: Connection, migration: Migration) -> None:
    try:
        async with connection.transaction():
            await connection.execute(migration.sql)
            await connection.execute(
                "INSERT INTO emberlog.schema_migrations (name, checksum) VALUES ($1, $2)",
                migration.name,
                migration.checksum,
            )
    except asyncpg.PostgresError as error:
        hint = f" ({error.hint})" if isinstance(error.hint, str) else ""
        raise MigrationError(f"migration {migration.name} failed and was rolled back: {error}{hint}") from error
