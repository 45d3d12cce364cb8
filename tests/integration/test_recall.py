"""Recall: what the index finds of the ten nearest of 3,000 real texts, embedded by the local model, held against an exact search."""

from __future__ import annotations

from collections.abc import AsyncIterator
from uuid import uuid4

import numpy as np
import pytest
import pytest_asyncio
from numpy.typing import NDArray

from adapters.postgres.vector_index import build_index
from adapters.postgres.vectors import VectorTable, VectorTables
from adapters.providers.local.files import MODEL, default_store
from adapters.providers.local.provider import LocalProvider
from domain.ports.provider import EmbedCall
from tests.support import minilm
from tests.support.databases import with_user
from tests.support.real_texts import real_texts

COUNT, ASKED, K = 3_000, 200, 10


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def embedded() -> NDArray[np.float32]:
    """The texts' vectors, made once."""
    minilm.published()
    provider = LocalProvider(default_store())
    try:
        # Texts of a length in a call: what is shorter is padded to the longest.
        texts = sorted(real_texts(COUNT, longest=80), key=len)
        parts = [
            (await provider.embed(EmbedCall(texts=texts[n : n + 64], model=MODEL, timeout=120.0))).vectors
            for n in range(0, COUNT, 64)
        ]
    finally:
        await provider.close()
    return np.concatenate(parts)


@pytest.fixture
async def tables(app_dsn: str) -> AsyncIterator[VectorTables]:
    opened = await VectorTables.connect(app_dsn)
    yield opened
    await opened.close()


def recall(found: list[set[str]], wanted: list[set[str]]) -> float:
    """The share of what was wanted that was found."""
    return sum(len(f & w) for f, w in zip(found, wanted, strict=True)) / sum(map(len, wanted))


async def test_the_index_finds_nearly_all_of_the_ten_nearest_of_real_texts(
    tables: VectorTables, embedded: NDArray[np.float32], migrated_dsn: str
) -> None:
    table = VectorTable(uuid4().hex, "acme", 384)
    ids = [str(n) for n in range(COUNT)]
    await tables.upsert(table, ids, embedded, [{"third": n % 3, "rare": n % 100 == 0} for n in range(COUNT)])
    asked = np.random.default_rng(11).choice(COUNT, ASKED, replace=False)
    cosines = embedded[asked] @ embedded.T
    wanted = [{str(n) for n in np.argsort(-row)[:K]} for row in cosines]
    assert await build_index(migrated_dsn, table)
    # The index alone: what the planner would rather do is no matter here.
    opened = await VectorTables.connect(with_user(migrated_dsn, "emberlog_gateway"), size=1)
    try:
        async with opened._pool.acquire() as connection:
            await connection.execute("SET enable_seqscan = off; SET enable_sort = off; SET enable_bitmapscan = off")
        found = [{m.id for m in await opened.search(table, embedded[n], K)} for n in asked]
        assert recall(found, wanted) >= 0.95
        for where, fits in (({"third": [1]}, lambda n: n % 3 == 1), ({"rare": [True]}, lambda n: n % 100 == 0)):
            of_those = [
                {str(n) for n in sorted(filter(fits, range(COUNT)), key=lambda n: -row[n])[:K]} for row in cosines[:40]
            ]
            filtered = [{m.id for m in await opened.search(table, embedded[n], K, where)} for n in asked[:40]]  # type: ignore[arg-type]
            assert recall(filtered, of_those) >= 0.95
        async with opened._pool.acquire() as connection:
            await connection.execute("SET hnsw.ef_search = 1; SET hnsw.iterative_scan = 'relaxed_order'")
        poor = [{m.id for m in await opened.search(table, embedded[n], K)} for n in asked]
        assert recall(poor, wanted) < recall(found, wanted), "the control: a worse search is told from a good one"
    finally:
        await opened.close()
