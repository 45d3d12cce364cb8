"""The tables of collections: rows put, found, listed and deleted; walls between tenants; an end that is final."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from uuid import uuid4

import asyncpg
import numpy as np
import pytest
from numpy.typing import NDArray

from adapters.postgres.pool import Connection
from adapters.postgres.vectors import CollectionGone, Scalar, VectorsRefused, VectorTable, VectorTables


@pytest.fixture
async def tables(app_dsn: str) -> AsyncIterator[VectorTables]:
    opened = await VectorTables.connect(app_dsn)
    yield opened
    await opened.close()


def table(dimensions: int = 8, tenant: str = "acme") -> VectorTable:
    return VectorTable(uuid4().hex, tenant, dimensions)


def vectors(count: int, dimensions: int = 8, seed: int = 1) -> NDArray[np.float32]:
    made = np.random.default_rng(seed).standard_normal((count, dimensions), dtype=np.float32)
    made /= np.linalg.norm(made, axis=1, keepdims=True)
    return made


@pytest.mark.parametrize("dimensions", [1, 384, 2000, 2001, 4000], ids=str)
async def test_rows_come_back_as_they_were_put_and_are_found_by_nearness(tables: VectorTables, dimensions: int) -> None:
    kept, rows = table(dimensions), vectors(40, dimensions)
    if dimensions == 1:
        rows[1::2] *= -1
    ids = [f"text {n}" for n in range(40)]
    await tables.upsert(kept, ids, rows, [{"n": n, "even": n % 2 == 0} for n in range(40)])
    found = {row.id: row for row in await tables.page(kept, "", 100, vectors=True)}
    for n in range(40):
        vector = found[ids[n]].vector
        assert vector is not None
        assert vector.dtype == np.float32
        # Longer vectors are kept in half precision, for an index takes them in no other.
        np.testing.assert_allclose(vector, rows[n], atol=0 if dimensions <= 2000 else 5e-4)
        assert found[ids[n]].metadata == {"n": n, "even": n % 2 == 0}
    if dimensions > 1:
        cosines = rows @ rows[7]
        matches = await tables.search(kept, rows[7], 5)
        assert [m.id for m in matches] == [ids[n] for n in np.argsort(-cosines)[:5]]
        np.testing.assert_allclose([m.score for m in matches], np.sort(cosines)[::-1][:5], atol=2e-3)


async def test_an_id_put_again_has_what_was_put_last_whole(tables: VectorTables) -> None:
    kept, rows = table(), vectors(2)
    await tables.upsert(kept, ["a", "b"], rows, [{"v": 1}, {"v": 1}])
    await tables.upsert(kept, ["a"], rows[1:], [None])
    a, b = await tables.page(kept, "", 10, vectors=True)
    assert (a.metadata, b.metadata) == (None, {"v": 1})
    assert a.vector is not None
    assert (a.vector == rows[1]).all()
    assert await tables.count(kept) == 2


async def test_a_write_of_many_statements_is_all_or_nothing(tables: VectorTables) -> None:
    kept, rows = table(2500), vectors(1000, 2500)
    rows[999] *= 1e30  # no number of half precision
    ids = [f"{n:04}" for n in range(1000)]
    with pytest.raises(VectorsRefused):
        await tables.upsert(kept, ids, rows, [None] * 1000)
    assert await tables.count(kept) == 0
    await tables.upsert(kept, ids[:999], rows[:999], [None] * 999)
    assert await tables.count(kept) == 999
    assert await tables.count(kept, 10) == 10


async def test_writers_of_the_same_rows_in_different_orders_do_not_lock_each_other_out(tables: VectorTables) -> None:
    kept, rows = table(), vectors(300)
    ids = [f"{n}" for n in range(300)]
    await asyncio.gather(
        *(
            tables.upsert(kept, ids[::step], rows[::step], [{"by": writer}] * 300)
            for writer, step in enumerate([1, -1] * 6)
        )
    )
    assert await tables.count(kept) == 300
    assert len({(row.metadata or {})["by"] for row in await tables.page(kept, "", 300)}) == 1


async def test_a_filter_takes_equality_and_any_of_several_values(tables: VectorTables) -> None:
    kept, rows = table(), vectors(60)
    metadata: list[dict[str, Scalar]] = [
        {"lang": ["de", "en", "fr"][n % 3], "n": n, "old": n < 30, "q'--": None} for n in range(60)
    ]
    await tables.upsert(kept, [f"{n:02}" for n in range(60)], rows, metadata)

    async def ids(**where: object) -> set[int]:
        matches = await tables.search(kept, rows[0], 100, where)  # type: ignore[arg-type]
        return {int(m.id) for m in matches}

    assert await ids(lang=["de"]) == {n for n in range(60) if n % 3 == 0}
    assert await ids(lang=["de", "fr"], old=[True]) == {n for n in range(30) if n % 3 != 1}
    assert await ids(n=[7, 8, "9"]) == {7, 8}, "a number is not the text of it"
    assert await ids(**{"q'--": [None]}) == set(range(60))
    assert await ids(other=[None]) == set(), "what is absent is not null"
    assert await ids(lang=[]) == set()


async def test_what_was_deleted_is_not_found(tables: VectorTables) -> None:
    kept, rows = table(), vectors(10)
    await tables.upsert(kept, [str(n) for n in range(10)], rows, [None] * 10)
    assert await tables.delete(kept, ["3", "3", "4", "nobody"]) == 2
    assert {m.id for m in await tables.search(kept, rows[3], 10)} == set("01256789")
    assert [row.id for row in await tables.page(kept, "2", 3)] == ["5", "6", "7"]


async def test_a_dropped_collection_is_gone_and_is_not_made_again(tables: VectorTables) -> None:
    kept, rows = table(), vectors(1)
    await tables.upsert(kept, ["a"], rows, [None])
    assert (kept.id, "acme") in await tables.kept("acme")
    assert await tables.drop(kept) is True
    assert await tables.drop(kept) is False
    assert await tables.kept() == []
    for work in (
        tables.upsert(kept, ["a"], rows, [None]), tables.search(kept, rows[0], 1), tables.page(kept, "", 1),
        tables.delete(kept, ["a"]), tables.count(kept),
    ):  # fmt: skip
        with pytest.raises(CollectionGone):
            await work
    never = table()
    await tables.drop(never)
    with pytest.raises(
        CollectionGone
    ):  # nobody who has not heard of its end makes what another has ended before it was made
        await tables.upsert(never, ["a"], rows, [None])


async def test_tables_are_made_once_by_however_many_need_them_first(tables: VectorTables) -> None:
    kept, rows = table(), vectors(8)
    await asyncio.gather(*(tables.upsert(kept, [str(n)], rows[n : n + 1], [None]) for n in range(8)))
    assert await tables.count(kept) == 8
    assert (await tables.index(kept)).state == "none"


async def test_a_tenant_whose_searches_take_long_keeps_no_other_from_its_own(
    tables: VectorTables, owner: Connection
) -> None:
    slow, quick, rows = table(), table(tenant="globex"), vectors(3)
    for kept in (slow, quick):
        await tables.upsert(kept, ["a", "b", "c"], rows, [None] * 3)
    async with owner.transaction():
        await owner.execute(f"LOCK TABLE vectors.c_{slow.id} IN ACCESS EXCLUSIVE MODE")
        waiting = [asyncio.create_task(tables.search(slow, rows[0], 1)) for _ in range(20)]
        async with asyncio.timeout(10):
            for _ in range(20):
                assert [m.id for m in await tables.search(quick, rows[1], 1)] == ["b"]
        assert not any(task.done() for task in waiting), "the control: they do wait"
    assert {found[0].id for found in await asyncio.gather(*waiting)} == {"a"}
    assert tables._turns == {}


async def test_the_application_reaches_no_collection_but_by_its_tenant(
    tables: VectorTables, app_dsn: str, owner: Connection
) -> None:
    kept, rows = table(), vectors(1)
    await tables.upsert(kept, ["a"], rows, [None])
    other = VectorTable(kept.id, "globex", 8)
    with pytest.raises(asyncpg.InsufficientPrivilegeError):
        await tables.drop(other)
    for bad in ("x" * 32, "A" * 32, "", 'c" (id int); --'):
        with pytest.raises(asyncpg.CheckViolationError):
            await tables.drop(VectorTable(bad, "acme", 8))
    connection = await asyncpg.connect(app_dsn)
    try:
        await connection.execute("SET ROLE emberlog_app")
        for statement in (
            f"DROP TABLE vectors.c_{kept.id}",
            "CREATE TABLE vectors.mine ()",
            "UPDATE emberlog.collections SET dropped_at = NULL",
            "DELETE FROM emberlog.collections",
        ):
            with pytest.raises(asyncpg.InsufficientPrivilegeError):
                await connection.execute(statement)
    finally:
        await connection.close()
    assert await owner.fetchval("SELECT count(*) FROM emberlog.collections WHERE dropped_at IS NULL") == 1
