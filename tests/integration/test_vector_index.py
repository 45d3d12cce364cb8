"""The index over a collection's vectors: built beside reads and writes, and no filter loses what an exact search finds."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from uuid import uuid4

import asyncpg
import numpy as np
import pytest
from numpy.typing import NDArray

from adapters.postgres.pool import Connection
from adapters.postgres.vector_codec import encode_vectors
from adapters.postgres.vector_index import build_index
from adapters.postgres.vectors import Filter, VectorTable, VectorTables

COUNT, SIZE = 3000, 16


@pytest.fixture
async def tables(app_dsn: str) -> AsyncIterator[VectorTables]:
    opened = await VectorTables.connect(app_dsn)
    yield opened
    await opened.close()


def _vectors(seed: int = 7) -> NDArray[np.float32]:
    """In clusters, the first of which are near to what is searched for."""
    random = np.random.default_rng(seed)
    centres = random.standard_normal((30, SIZE), dtype=np.float32)
    made = centres[np.arange(COUNT) % 30] + 0.1 * random.standard_normal((COUNT, SIZE), dtype=np.float32)
    made /= np.linalg.norm(made, axis=1, keepdims=True)
    return made


async def _filled(tables: VectorTables, dimensions: int = SIZE) -> tuple[VectorTable, NDArray[np.float32]]:
    kept, rows = VectorTable(uuid4().hex, "acme", dimensions), _vectors()
    if dimensions != SIZE:
        rows = np.pad(rows, ((0, 0), (0, dimensions - SIZE)))
    # What the filters ask for lies in the cluster farthest away: whatever is near must be passed over first.
    far = int(np.argmin(rows[:30] @ rows[0]))
    metadata = [{"kind": "rare" if n % 30 == far and n < 600 else "common"} for n in range(COUNT)]
    await tables.upsert(kept, [f"{n:05}" for n in range(COUNT)], rows, metadata)
    return kept, rows


async def _plan(owner: Connection, kept: VectorTable) -> str:
    await owner.execute("SET search_path = vectors")
    sql = f"EXPLAIN SELECT id FROM c_{kept.id} ORDER BY embedding <=> (SELECT embedding FROM c_{kept.id} LIMIT 1) LIMIT 10"
    return "\n".join(row[0] for row in await owner.fetch(sql))


async def test_the_index_is_built_once_and_used(tables: VectorTables, migrated_dsn: str, owner: Connection) -> None:
    kept, rows = await _filled(tables)
    before = await tables.search(kept, rows[5], 10)
    assert (await tables.index(kept)).state == "none"
    assert "hnsw" not in await _plan(owner, kept)
    results = await asyncio.gather(*(build_index(migrated_dsn, kept) for _ in range(3)))
    assert True in results
    assert (await tables.index(kept)).state == "ready"
    assert "hnsw" in await _plan(owner, kept)
    assert await tables.search(kept, rows[5], 10) == before


@pytest.fixture
async def by_index(app_dsn: str) -> AsyncIterator[VectorTables]:
    """One connection, which looks at what the index over the vectors gives, however dear that is."""
    opened = await VectorTables.connect(app_dsn, size=1)
    await _set(opened, "enable_seqscan = off", "enable_bitmapscan = off", "enable_sort = off")
    yield opened
    await opened.close()


async def _set(tables: VectorTables, *settings: str) -> None:
    async with tables._pool.acquire() as connection:
        for setting in settings:
            await connection.execute(f"SET {setting}")


async def _by_index_alone(tables: VectorTables, kept: VectorTable, row: NDArray[np.float32], where: str) -> int:
    async with tables._pool.acquire() as connection:
        await connection.execute("SET search_path = vectors")
        sql = f"SELECT id FROM c_{kept.id} WHERE {where} ORDER BY embedding <=> $1::vector LIMIT 10"
        assert "hnsw" in str(await connection.fetch(f"EXPLAIN {sql}", *encode_vectors(row.reshape(1, -1))))
        return len(await connection.fetch(sql, *encode_vectors(row.reshape(1, -1))))


RARE: Filter = {"kind": ["rare"]}
RARE_SQL = """metadata @> '{"kind": "rare"}'"""


@pytest.mark.parametrize("wanted", [10, 20, 60])
async def test_a_filter_loses_nothing_that_an_exact_search_finds(
    tables: VectorTables, by_index: VectorTables, migrated_dsn: str, wanted: int
) -> None:
    kept, rows = await _filled(tables)
    await build_index(migrated_dsn, kept)
    exact = await tables.search(kept, rows[0], wanted, RARE, exact=True)
    assert len(exact) == min(wanted, 20)
    assert await tables.search(kept, rows[0], wanted, RARE) == exact
    assert await by_index.search(kept, rows[0], wanted, RARE) == exact


@pytest.mark.parametrize("shortcoming", ["hnsw.iterative_scan = off", "hnsw.max_scan_tuples = 500"])
async def test_where_the_index_gives_too_few_every_row_is_looked_at(
    tables: VectorTables, by_index: VectorTables, migrated_dsn: str, shortcoming: str
) -> None:
    """An extension before 0.8 looks at `ef_search` rows and no more; a later one gives up after so many."""
    kept, rows = await _filled(tables)
    await build_index(migrated_dsn, kept)
    await _set(by_index, shortcoming)
    assert await _by_index_alone(by_index, kept, rows[0], RARE_SQL) < 10, "the control: the index loses them"
    exact = await tables.search(kept, rows[0], 10, RARE, exact=True)
    assert await by_index.search(kept, rows[0], 10, RARE) == exact


async def test_vectors_beyond_two_thousand_dimensions_are_indexed_in_half_precision(
    tables: VectorTables, migrated_dsn: str
) -> None:
    kept, rows = await _filled(tables, 2500)
    await build_index(migrated_dsn, kept)
    assert (await tables.index(kept)).state == "ready"
    found = {m.id for m in await tables.search(kept, rows[3], 10)}
    assert len(found & {m.id for m in await tables.search(kept, rows[3], 10, exact=True)}) >= 9


async def test_a_broken_off_build_is_made_good(tables: VectorTables, migrated_dsn: str, owner: Connection) -> None:
    kept, _ = await _filled(tables)
    await build_index(migrated_dsn, kept)
    await owner.execute(
        "UPDATE pg_index SET indisvalid = false WHERE indexrelid = to_regclass($1)", f"vectors.c_{kept.id}_hnsw"
    )
    assert (await tables.index(kept)).state == "none"
    assert await build_index(migrated_dsn, kept)
    assert (await tables.index(kept)).state == "ready"


async def test_only_the_owner_builds(tables: VectorTables, app_dsn: str) -> None:
    kept, _ = await _filled(tables)
    with pytest.raises(asyncpg.InsufficientPrivilegeError):
        await build_index(app_dsn, kept)
