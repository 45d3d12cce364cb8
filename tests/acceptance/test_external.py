"""A database and a Redis that are somebody else's."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.acceptance.load import check_vectors
from tests.acceptance.peer import rows_of, session
from tests.acceptance.provider import Simulator
from tests.acceptance.site import Ended, Site
from tests.support.databases import execute

_LAST = "DELETE FROM emberlog.schema_migrations WHERE name = (SELECT max(name) FROM emberlog.schema_migrations)"
_FUTURE = "INSERT INTO emberlog.schema_migrations (name, checksum, after_deploy) VALUES ('9999_future', '\\x00', true)"


async def _refusal(site: Site, **env: str) -> Ended:
    ended = await site.run("serve", timeout=30, EMBERLOG_LISTEN="127.0.0.1:0", **env)
    assert ended.code == 1
    assert "listening" not in ended.out
    assert "Traceback" not in ended.err
    return ended


async def test_a_gateway_on_an_empty_older_or_newer_schema_refuses_to_start_and_says_what_to_run(
    migrated: Site, external: Site
) -> None:
    await execute(external.dsn, _FUTURE)
    assert "newer" in (await _refusal(migrated)).err
    await execute(external.dsn, _LAST)
    await execute(external.dsn, _LAST)
    assert "emberlog migrate" in (await _refusal(migrated)).err
    await execute(external.dsn, "DROP SCHEMA emberlog CASCADE")
    assert "emberlog migrate" in (await _refusal(migrated)).err


async def test_a_gateway_without_the_installations_key_refuses_to_start_and_says_how_to_make_one(
    migrated: Site, folder: Path
) -> None:
    missing = await _refusal(migrated, EMBERLOG_SECRET_KEY_FILE=str(folder / "nowhere.key"))
    assert "nowhere.key" in missing.err
    (folder / "short.key").write_text("dG9vIHNob3J0\n")
    (folder / "short.key").chmod(0o600)
    assert "short.key" in (await _refusal(migrated, EMBERLOG_SECRET_KEY_FILE=str(folder / "short.key"))).err
    del migrated.env["EMBERLOG_SECRET_KEY_FILE"]
    assert "EMBERLOG_SECRET_KEY_FILE" in (await _refusal(migrated)).err


async def test_a_gateway_whose_database_cannot_be_reached_refuses_to_start_without_showing_the_password(
    migrated: Site,
) -> None:
    ended = await _refusal(migrated, EMBERLOG_DATABASE_URL="postgresql://someone:hunter2@127.0.0.1:1/emberlog")
    assert "hunter2" not in ended.err + ended.out


@pytest.mark.parametrize("redis", ["shared", "none"])
async def test_it_serves_from_a_migrated_database_with_redis_or_without(
    migrated: Site, provider: Simulator, redis: str
) -> None:
    if redis == "none":
        migrated.env["EMBERLOG_REDIS_URL"] = "none"
    await migrated.ask("tenants", "create", "acme")
    key = await migrated.create_key("acme")
    gateway = migrated.gateway()
    await gateway.start()
    try:
        assert gateway.key is None, "a development key was made in somebody else's database"
        async with session(gateway.url, key.token) as peer:
            first = await peer.embed("first", ["one", "two"])
            check_vectors(["one", "two"], rows_of(first), "external")
    finally:
        assert await gateway.stop() == 0
    again = migrated.gateway()
    await again.start()
    try:
        async with session(again.url, key.token) as peer:
            second = await peer.embed("first", ["one", "two"])
            assert (second["replayed"], second["event"]) == (True, first["event"])
            cached = (await peer.embed("second", ["one", "two"]))["usage"]["cached_inputs"]
            assert cached == 2
        if redis == "shared":
            types = [e.type for e in await migrated.request_events("first", "acme")]
            assert "embedding.reembedded" not in types, "the shared cache was not asked"
    finally:
        assert await again.stop() == 0
    usage = await migrated.ask("usage", "--tenant", "acme", "--grain", "day")
    assert sum(row["requests"] for row in usage["usage"]) == 2
