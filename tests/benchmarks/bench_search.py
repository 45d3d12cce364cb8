"""Search over real texts held against exact search: `python -m tests.benchmarks.bench_search [COUNT]` (100,000).

Recall@10 and latency of a vector query, with and without a filter, of docstrings and comments of the standard library and of what is installed,
embedded by the local model. Embedding 100,000 of them takes some minutes.
"""

from __future__ import annotations

import asyncio
import os
import sys
import time
from uuid import uuid4

import numpy as np
from numpy.typing import NDArray

from adapters.embedded import EmbeddedServices
from adapters.postgres.migrator import migrate
from adapters.postgres.vector_index import build_index
from adapters.postgres.vectors import Filter, Match, VectorTable, VectorTables
from adapters.providers.local.fetch import ensure
from adapters.providers.local.files import default_store
from adapters.providers.local.model import LocalModel
from tests.support.folders import temporary_data_dir, temporary_folder
from tests.support.real_texts import real_texts

K, ASKED, AT_ONCE = 10, 500, 128
FILTERS: dict[str, Filter | None] = {
    "no filter": None,
    "a tenth": {"tenth": [3]},
    "one in a thousand": {"rare": [True]},
}


def embedded(count: int) -> NDArray[np.float32]:
    """The texts' vectors."""
    texts = sorted(real_texts(count, installed=True), key=len)
    model = LocalModel(ensure(default_store()), os.cpu_count() or 1)
    started = time.perf_counter()
    rows = np.concatenate([model.embed(texts[n : n + AT_ONCE], lambda: False)[0] for n in range(0, count, AT_ONCE)])
    print(f"embedded {count} texts in {time.perf_counter() - started:.0f} s")
    return rows


async def measure(dsn: str, app_dsn: str, rows: NDArray[np.float32]) -> None:
    """Fill a collection, build its index and ask it."""
    count, random = len(rows), np.random.default_rng(5)
    tables, table = await VectorTables.connect(app_dsn), VectorTable(uuid4().hex, "acme", rows.shape[1])
    metadata = [{"tenth": n % 10, "rare": n % 1000 == 7} for n in random.permutation(count).tolist()]
    started = time.perf_counter()
    for n in range(0, count, 5000):
        ids = [str(i) for i in range(n, min(n + 5000, count))]
        await tables.upsert(table, ids, rows[n : n + 5000], metadata[n : n + 5000])
    print(f"put in {time.perf_counter() - started:.1f} s")
    started = time.perf_counter()
    await build_index(dsn, table)
    print(f"index built in {time.perf_counter() - started:.1f} s")
    asked = random.choice(count, ASKED, replace=False)
    for name, where in FILTERS.items():
        found: list[list[Match]] = []
        times = []
        for n in asked:
            started = time.perf_counter()
            found.append(await tables.search(table, rows[n], K, where))
            times.append(time.perf_counter() - started)
        fits = np.array([where is None or all(m[f] in v for f, v in where.items()) for m in metadata])
        hits = wanted = 0
        for n, matches in zip(asked, found, strict=True):
            scores = np.where(fits, rows @ rows[n], -2)
            best = {str(i) for i in np.argpartition(-scores, K)[:K] if fits[i]}
            wanted, hits = wanted + len(best), hits + len(best & {m.id for m in matches})
        p50, p99 = np.percentile(times, [50, 99]) * 1000
        print(f"{name}: recall@{K} {hits / wanted:.4f}, p50 {p50:.1f} ms, p99 {p99:.1f} ms")
    await tables.close()


async def main() -> None:
    """As the module says."""
    rows = embedded(int(sys.argv[1]) if len(sys.argv) > 1 else 100_000)
    with temporary_folder() as folder, temporary_data_dir(folder) as data_dir:
        async with await EmbeddedServices.start(data_dir, valkey=False) as services:
            await migrate(services.owner_dsn)
            await services.grant_app_role()
            await measure(services.owner_dsn, services.app_dsn, rows)


if __name__ == "__main__":
    asyncio.run(main())
