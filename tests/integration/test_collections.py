"""Collections in a database: commands, indexes that are built when they are worth it, and an end with their tenant's."""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import AsyncIterator
from pathlib import Path

import numpy as np
import pytest

from adapters.postgres.pool import Connection
from adapters.postgres.vectors import CollectionGone, VectorTable, VectorTables
from domain.collections import Collection
from domain.events import CollectionCreated, CollectionDeleted, TenantShredded
from domain.plane import ControlPlane
from gateway.collections.parts import CollectionParts
from gateway.collections.ports import table_of
from gateway.collections.upkeep import INDEX_ROWS, Upkeep
from tests.support.cli import Cli
from tests.support.databases import with_user


@pytest.fixture
async def tables(app_dsn: str) -> AsyncIterator[VectorTables]:
    opened = await VectorTables.connect(app_dsn)
    yield opened
    await opened.close()


@pytest.fixture
async def cli(migrated_dsn: str, tmp_path: Path) -> Cli:
    key = tmp_path / "secret.key"
    key.write_bytes(base64.b64encode(bytes(32)))
    made = Cli({
        "EMBERLOG_DATABASE_URL": with_user(migrated_dsn, "emberlog_gateway"),
        "EMBERLOG_DATABASE_OWNER_URL": migrated_dsn,
        "EMBERLOG_SECRET_KEY_FILE": str(key),
    })  # fmt: skip
    assert (await made.run("tenants", "create", "acme")).code == 0
    return made


def kept(name: str, table: str, dimensions: int = 4) -> Collection:
    return Collection(name, "acme", table * 32, f"m@1/{dimensions}/unit", dimensions)


async def put(tables: VectorTables, table: VectorTable, count: int) -> None:
    rows = np.random.default_rng(3).standard_normal((count, table.dimensions), dtype=np.float32)
    await tables.upsert(table, [f"{n:06}" for n in range(count)], rows, [None] * count)


async def test_collections_are_made_shown_exported_and_deleted_by_commands(
    cli: Cli, tables: VectorTables, owner: Connection, tmp_path: Path
) -> None:
    of = ("--tenant", "acme")
    made = await cli.json("collections", "create", "docs", *of, "--model", "all-MiniLM-L6-v2")
    assert made == {"name": "docs", "tenant": "acme", "space": made["space"], "dimensions": 384}
    assert await cli.json("collections", "create", "docs", *of, "--space", made["space"]) == made
    assert await cli.json("collections", "list", *of) == [
        {"id": "docs", "tenant": "acme", "space": made["space"], "dimensions": 384}
    ]
    created = "SELECT data ->> 'table' FROM emberlog.events WHERE type = 'collection.created'"
    table = VectorTable(await owner.fetchval(created), "acme", 384)
    await put(tables, table, 2500)
    shown = await cli.json("collections", "show", "docs", *of)
    assert (shown["vectors"], shown["index"]["state"]) == (2500, "none")
    export = await cli.run("collections", "export", "docs", *of)
    rows = [json.loads(line) for line in export.out.splitlines()]
    assert [row["id"] for row in rows] == [f"{n:06}" for n in range(2500)]
    assert len(rows[0]["vector"]) == 384
    vector = tmp_path / "vector.json"
    vector.write_text(json.dumps(rows[7]["vector"]))
    found = await cli.json("collections", "search", "docs", *of, "--vector", str(vector), "-k", "3")
    assert (len(found["matches"]), found["matches"][0]["id"], found["space"]) == (3, "000007", made["space"])
    none = await cli.json("collections", "search", "docs", *of, "--vector", str(vector), "--filter", "n=[1, 2]")
    assert none["matches"] == []
    assert (await cli.run("collections", "search", "docs", *of, "--vector", str(vector), "--filter", "n")).code == 2
    vector.write_text("[1, 2]")
    short = await cli.run("collections", "search", "docs", *of, "--vector", str(vector))
    assert (short.code, "2 numbers" in short.error) == (1, True)
    refused = await cli.run(
        "collections", "create", "docs", *of, "--model", "all-MiniLM-L6-v2", "--input-type", "clustering"
    )
    assert (refused.code, "resource_constraint" in refused.error) == (1, True)
    assert (await cli.run("collections", "show", "docs", "--tenant", "globex")).code == 1
    assert await cli.json("collections", "delete", "docs", *of) == {"name": "docs", "deleted": True}
    assert await tables.kept() == []
    assert (await cli.run("collections", "delete", "docs", *of)).code == 1


async def test_a_shredded_tenants_vectors_are_dropped_by_the_command(
    cli: Cli, tables: VectorTables, tmp_path: Path
) -> None:
    mine, other = VectorTable("a" * 32, "acme", 4), VectorTable("b" * 32, "globex", 4)
    await put(tables, mine, 3)
    await put(tables, other, 3)
    done = await cli.run("tenants", "shred", "acme", "--yes", "--ledger", str(tmp_path / "ledger"))
    assert done.code == 0, done.error
    assert await tables.kept() == [("b" * 32, "globex")]
    with pytest.raises(CollectionGone):
        await tables.count(mine)


async def test_a_gateway_that_hears_of_a_shred_drops_what_the_tenant_kept_as_soon_as_it_can(
    tables: VectorTables, app_dsn: str, migrated_dsn: str
) -> None:
    mine, other = VectorTable("a" * 32, "acme", 4), VectorTable("b" * 32, "globex", 4)
    for table in (mine, other):
        await put(tables, table, 3)
    parts = CollectionParts(await VectorTables.connect(app_dsn, size=1), ControlPlane(), migrated_dsn)
    await parts.forget("acme")
    assert await tables.kept() == [("b" * 32, "globex")]
    await parts.close()
    with pytest.raises(OSError, match="out of reach"):
        await parts.forget("globex")


async def test_a_collection_is_indexed_once_it_has_grown(tables: VectorTables, migrated_dsn: str) -> None:
    plane, small, large = ControlPlane(), kept("small", "a"), kept("large", "b")
    for collection in (small, large):
        plane.collections.apply("acme", CollectionCreated(collection.name, collection.table, collection.space))
    await put(tables, table_of(small), 10)
    await put(tables, table_of(large), INDEX_ROWS)
    upkeep = Upkeep(plane, tables, migrated_dsn)
    building = asyncio.create_task(upkeep.run_builds())
    try:
        async with asyncio.timeout(30):
            while (await tables.index(table_of(large))).state != "ready":
                await asyncio.sleep(0.05)
            await put(tables, table_of(small), INDEX_ROWS)
            upkeep.grown(small)
            while (await tables.index(table_of(small))).state != "ready":
                await asyncio.sleep(0.05)
    finally:
        building.cancel()


async def test_a_small_collection_is_not_indexed(tables: VectorTables, migrated_dsn: str) -> None:
    small = kept("small", "a")
    await put(tables, table_of(small), INDEX_ROWS - 1)
    assert not await Upkeep(ControlPlane(), tables, migrated_dsn).index(table_of(small))
    await put(tables, table_of(small), INDEX_ROWS)
    assert await Upkeep(ControlPlane(), tables, migrated_dsn).index(table_of(small))


async def test_what_is_left_of_ended_collections_is_swept_and_nothing_else(
    tables: VectorTables, migrated_dsn: str
) -> None:
    plane = ControlPlane()
    live, deleted, unknown = kept("live", "a"), kept("deleted", "b"), kept("of a newer build", "c")
    for collection in (live, deleted):
        plane.collections.apply("acme", CollectionCreated(collection.name, collection.table, collection.space))
    plane.collections.apply("acme", CollectionDeleted("deleted", deleted.table))
    late = VectorTable("d" * 32, "globex", 4)  # made by a gateway that had not heard of it
    plane.directory.apply(1, "globex", TenantShredded("globex"))
    for collection in (live, deleted, unknown):
        await put(tables, table_of(collection), 1)
    await put(tables, late, 1)
    assert await Upkeep(plane, tables, migrated_dsn).sweep() == 2
    assert {table for table, _ in await tables.kept()} == {live.table, unknown.table}
