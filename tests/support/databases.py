"""Throw-away databases on a running server."""

from __future__ import annotations

import itertools
from urllib.parse import urlsplit, urlunsplit

import asyncpg

_numbers = itertools.count(1)


def with_database(dsn: str, database: str) -> str:
    """The same connection string for another database."""
    parts = urlsplit(dsn)
    return f"{parts.scheme}://{parts.netloc}/{database}" + (f"?{parts.query}" if parts.query else "")


def with_user(dsn: str, user: str) -> str:
    """The same connection string for another user."""
    parts = urlsplit(dsn)
    host = parts.netloc.rpartition("@")[2]
    return urlunsplit(parts._replace(netloc=f"{user}@{host}"))


async def create_database(admin_dsn: str, *, template: str = "template1") -> str:
    """Make a database of a fresh name and return its name. Its files are copied, which takes half of what writing them to the log does."""
    name = f"test_{next(_numbers)}"
    await execute(admin_dsn, f'CREATE DATABASE "{name}" TEMPLATE "{template}" STRATEGY FILE_COPY')
    return name


async def drop_database(admin_dsn: str, name: str) -> None:
    """Drop it, throwing out whoever is still connected."""
    await execute(admin_dsn, f'DROP DATABASE IF EXISTS "{name}" WITH (FORCE)')


async def execute(dsn: str, statement: str) -> None:
    """Run one statement on a connection of its own."""
    connection = await asyncpg.connect(dsn)
    try:
        await connection.execute(statement)
    finally:
        await connection.close()
