"""Vectors on the wire of Postgres: pgvector's binary format, which is two 16-bit numbers and then float32, all big-endian."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from adapters.postgres.pool import Connection, assume_role

if TYPE_CHECKING:
    import asyncpg
    from asyncpg.pool import PoolConnectionProxy

_HEAD = struct.Struct(">HH")


def encode_vectors(rows: NDArray[np.float32]) -> list[bytes]:
    """The rows as Postgres takes them. (asyncpg would take an array among parameters for a list.)"""
    head = _HEAD.pack(rows.shape[1], 0)
    return [head + row.tobytes() for row in rows.astype(">f4")]


def decode_vector(data: bytes) -> NDArray[np.float32]:
    """A vector as Postgres gave it."""
    size, _ = _HEAD.unpack_from(data)
    return np.frombuffer(data, dtype=">f4", count=size, offset=_HEAD.size).astype(np.float32)


async def extension(connection: Connection | PoolConnectionProxy[asyncpg.Record]) -> tuple[str, tuple[int, ...]]:
    """The schema that the extension stands in, quoted, and its version. Raises LookupError where there is none."""
    row = await connection.fetchrow(
        "SELECT e.extnamespace::regnamespace::text AS schema, e.extversion FROM pg_extension e WHERE e.extname = 'vector'"
    )
    if row is None:
        raise LookupError("the database has no extension 'vector': run `emberlog migrate`")
    return row["schema"], tuple(int(part) for part in row["extversion"].split("."))


async def speak_vectors(connection: Connection) -> None:
    """Make this connection take what `encode_vectors` gives, and give numpy rows; for the application's pool of vectors."""
    await assume_role(connection)
    schema, version = await extension(connection)
    await connection.set_type_codec(
        "vector", schema=schema.strip('"'), encoder=_as_it_is, decoder=decode_vector, format="binary"
    )
    if version >= (0, 8):
        # A filter may leave nothing of what the index finds first: it goes on then, in order, rather than answer with less.
        await connection.execute("SELECT set_config('hnsw.iterative_scan', 'strict_order', false)")
    await connection.execute("SELECT set_config('hnsw.ef_search', '100', false)")


def _as_it_is(encoded: bytes) -> bytes:
    return encoded
