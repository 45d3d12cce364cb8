"""The reference vectors of each space: what our probe texts embed to in it, written once."""

from __future__ import annotations

from collections.abc import Mapping

import asyncpg

_INSERT = """
INSERT INTO emberlog.space_references (space, probe, vector) SELECT $1, p.probe, p.vector
FROM unnest($2::bytea[], $3::bytea[]) AS p (probe, vector) ORDER BY p.probe
ON CONFLICT DO NOTHING
"""
_READ = "SELECT probe, vector FROM emberlog.space_references WHERE space = $1 AND probe = ANY ($2::bytea[])"


async def references(pool: asyncpg.Pool[asyncpg.Record], space: str, probes: list[bytes]) -> dict[bytes, bytes]:
    """The vectors (float32, little-endian) of those of the probes that the space has."""
    return {row["probe"]: row["vector"] for row in await pool.fetch(_READ, space, probes)}


async def keep_references(pool: asyncpg.Pool[asyncpg.Record], space: str, vectors: Mapping[bytes, bytes]) -> None:
    """Keep these, but for the probes that the space has already."""
    await pool.execute(_INSERT, space, list(vectors), list(vectors.values()))
