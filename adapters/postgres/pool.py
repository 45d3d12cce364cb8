"""Connections to Postgres as the application: bounded, named, with a statement timeout, in the role `emberlog_app`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import asyncpg

if TYPE_CHECKING:
    Connection = asyncpg.Connection[asyncpg.Record]
    Pool = asyncpg.Pool[asyncpg.Record]
else:  # at run time these classes take no parameter
    Connection = asyncpg.Connection
    Pool = asyncpg.Pool

APPLICATION_ROLE = "emberlog_app"
CONNECT_SECONDS = 5.0
"""A server that does not answer within this time counts as unreachable."""

UNREACHABLE = (OSError, TimeoutError, asyncpg.PostgresError, asyncpg.InterfaceError, asyncpg.InternalClientError)
"""What connecting, or a statement on a connection that dies, raises. The last one: a server killed in the middle of an answer leaves
the connection's protocol in a state that refuses the next statement before the loss of the socket is noticed."""


class RoleMissing(Exception):
    """The database lacks the application's role, or the login may not switch to it; the message says what to run."""


async def assume_role(connection: Connection) -> None:
    """Give up the login's own rights for the application's, unless it has no others. Raises `RoleMissing`."""
    if await connection.fetchval("SELECT session_user") == APPLICATION_ROLE:
        return
    try:
        await connection.execute(f"SET ROLE {APPLICATION_ROLE}")
    except (asyncpg.InvalidParameterValueError, asyncpg.UndefinedObjectError) as error:
        raise RoleMissing(f"role {APPLICATION_ROLE!r} does not exist: run `emberlog migrate` first") from error
    except asyncpg.InsufficientPrivilegeError as error:
        raise RoleMissing(
            f"the database login may not switch to role {APPLICATION_ROLE!r}: as its owner run "
            f"GRANT {APPLICATION_ROLE} TO the login of the gateway"
        ) from error


def _server_settings(name: str, statement_timeout: float) -> dict[str, str]:
    return {
        "application_name": f"emberlog {name}",
        "statement_timeout": str(int(statement_timeout * 1000)),
        "idle_in_transaction_session_timeout": "60000",
        "timezone": "UTC",
    }


async def connect(
    dsn: str, name: str, *, statement_timeout: float = 30.0, role: bool = True, settings: dict[str, str] | None = None
) -> Connection:
    """One connection named `emberlog <name>`. `statement_timeout` in seconds; `role` False keeps the login's own rights. Raises `RoleMissing` and `UNREACHABLE`."""
    connection = await asyncpg.connect(
        dsn,
        timeout=CONNECT_SECONDS,
        server_settings=_server_settings(name, statement_timeout) | (settings or {}),
    )
    if role:
        try:
            await assume_role(connection)
        except BaseException:
            connection.terminate()
            raise
    return connection


async def open_pool(
    dsn: str,
    name: str,
    *,
    min_size: int = 1,
    max_size: int = 4,
    statement_timeout: float = 30.0,
    settings: dict[str, str] | None = None,
) -> Pool:
    """A pool of such connections, from `min_size` to `max_size`. Callers wait for a free one; there are never more."""
    return await asyncpg.create_pool(
        dsn,
        min_size=min_size,
        max_size=max_size,
        init=assume_role,
        timeout=CONNECT_SECONDS,
        command_timeout=statement_timeout + 5,
        server_settings=_server_settings(name, statement_timeout) | (settings or {}),
    )
