"""The reference vectors of each space: what our probe texts embed to in it, written once for each owner and epoch."""

from __future__ import annotations

from collections.abc import Mapping

import asyncpg
import msgspec

_INSERT = """
INSERT INTO emberlog.space_references (space, owner, epoch, probe, vector) SELECT $1, $2, $3, p.probe, p.vector
FROM unnest($4::bytea[], $5::bytea[]) AS p (probe, vector) ORDER BY p.probe
ON CONFLICT DO NOTHING
"""
_READ = """
SELECT probe, vector FROM emberlog.space_references
WHERE space = $1 AND owner = $2 AND epoch = $3 AND probe = ANY ($4::bytea[])
"""
_LATEST = "SELECT coalesce(max(epoch), -1) FROM emberlog.space_references WHERE space = $1 AND owner = $2"


class ReferenceSet(msgspec.Struct, frozen=True):
    """Which references: those of a space, by the installation's endpoints (`owner` '') or by a tenant's, after so many renewals."""

    space: str
    owner: str = ""
    epoch: int = 0


async def references(pool: asyncpg.Pool[asyncpg.Record], of: ReferenceSet, probes: list[bytes]) -> dict[bytes, bytes]:
    """The vectors (float32, little-endian) of those of the probes that the set has."""
    return {row["probe"]: row["vector"] for row in await pool.fetch(_READ, of.space, of.owner, of.epoch, probes)}


async def keep_references(pool: asyncpg.Pool[asyncpg.Record], of: ReferenceSet, vectors: Mapping[bytes, bytes]) -> None:
    """Keep these, but for the probes that the set has already: of several who bring some at once, the first wins."""
    await pool.execute(_INSERT, of.space, of.owner, of.epoch, list(vectors), list(vectors.values()))


async def latest_epoch(pool: asyncpg.Pool[asyncpg.Record], space: str, owner: str) -> int:
    """The last epoch that was begun, whether or not the log came to hear of it; -1 where there is none."""
    found: int = await pool.fetchval(_LATEST, space, owner)
    return found
