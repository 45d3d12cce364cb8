"""Reference vectors in the database: of several who bring some at once the first wins whole, and each owner and epoch has its own."""

from __future__ import annotations

import asyncio

import asyncpg
import pytest

from adapters.postgres.pool import open_pool
from adapters.postgres.space_references import ReferenceSet, keep_references, latest_epoch, references

PROBES = [bytes([n]) * 16 for n in range(8)]
SPACE = "m@1/8/unit"


@pytest.fixture
async def pool(app_dsn: str) -> asyncpg.Pool[asyncpg.Record]:
    return await open_pool(app_dsn, "references", min_size=0, max_size=6)


async def test_the_first_who_brings_references_wins_with_all_of_them(pool: asyncpg.Pool[asyncpg.Record]) -> None:
    async with pool:
        for epoch in range(20):
            of = ReferenceSet(SPACE, epoch=epoch)
            await asyncio.gather(
                *(keep_references(pool, of, dict.fromkeys(PROBES, bytes([writer]))) for writer in range(6))
            )
            found = await references(pool, of, PROBES)
            assert (len(found), len(set(found.values()))) == (8, 1), "the vectors of two writers are not mixed"
        assert await latest_epoch(pool, SPACE, "") == 19


async def test_owners_and_epochs_do_not_see_each_others(pool: asyncpg.Pool[asyncpg.Record]) -> None:
    async with pool:
        for n, of in enumerate(
            sets := [ReferenceSet(SPACE), ReferenceSet(SPACE, "acme"), ReferenceSet(SPACE, "acme", 1)]
        ):
            assert await references(pool, of, PROBES) == {}
            await keep_references(pool, of, {PROBES[0]: bytes([n])})
        for n, of in enumerate(sets):
            await keep_references(pool, of, {PROBES[0]: b"late", PROBES[1]: b"new"})
            assert await references(pool, of, PROBES) == {PROBES[0]: bytes([n]), PROBES[1]: b"new"}
        assert [await latest_epoch(pool, SPACE, owner) for owner in ("", "acme", "globex")] == [0, 1, -1]


async def test_nobody_who_serves_requests_can_change_a_reference(pool: asyncpg.Pool[asyncpg.Record]) -> None:
    async with pool:
        await keep_references(pool, ReferenceSet(SPACE), {PROBES[0]: b"v"})
        for statement in ("UPDATE emberlog.space_references SET vector = ''", "DELETE FROM emberlog.space_references"):
            with pytest.raises(asyncpg.InsufficientPrivilegeError):
                await pool.execute(statement)
