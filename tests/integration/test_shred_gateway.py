"""A gateway and the shreds it finds when it starts, sees while it runs, or is told of by the ledger alone."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from redis.asyncio import Redis

from adapters.postgres.tenant_keys import all_wrapped, put_if_absent
from adapters.redis.vector_cache import PREFIX
from domain.errors import GatewayError
from domain.events import Preferences
from domain.fingerprint import tenant_tag
from gateway.decisions import create_key, create_tenant
from gateway.gateway import Gateway
from gateway.house import master_key
from gateway.manage import Installation
from gateway.places import Places
from gateway.secrets import MasterKey, SecretKeyError
from gateway.shred_ledger import note_shred
from gateway.shredding import shred_tenant
from gateway.wire.messages import AgentInfo
from tests.support.cli import Cli
from tests.support.databases import with_user
from tests.support.installing import installed, settings_of
from tests.support.waiting import until


@asynccontextmanager
async def serving(owner_dsn: str, folder: Path, redis_url: str | None = None) -> AsyncIterator[Gateway]:
    settings = settings_of(owner_dsn, folder)
    places = Places(with_user(owner_dsn, "emberlog_gateway"), owner_dsn, redis_url)
    gateway = await Gateway.open(settings, places, master_key(settings))
    try:
        yield gateway
    finally:
        await gateway.close()


@pytest.fixture
async def installation(migrated_dsn: str, tmp_path: Path) -> AsyncIterator[Installation]:
    async with installed(migrated_dsn, tmp_path) as opened:
        yield opened


async def tokens(installation: Installation) -> dict[str, str]:
    """A key of each of two new tenants."""
    made = {}
    async with installation.writer() as instance:
        for tenant in ("acme", "globex"):
            await create_tenant(installation.log, instance, installation.master(), tenant, actor="cli:test")
            made[tenant] = (await create_key(installation.log, instance, tenant, ["agent"], actor="cli:test")).token
    return made


def shut_out(gateway: Gateway, token: str) -> bool:
    try:
        gateway.authenticate(token)
    except GatewayError as error:
        return error.code == "unauthorized"
    return False


async def test_it_seals_nothing_for_a_tenant_once_it_sees_the_shred_and_forgets_the_key(
    installation: Installation, migrated_dsn: str, tmp_path: Path
) -> None:
    keys = await tokens(installation)
    async with serving(migrated_dsn, tmp_path) as gateway:
        principal = gateway.authenticate(keys["acme"])
        assert set(gateway._keys.opened) == {"acme", "globex"}
        await shred_tenant(installation, installation.ledger(None), "acme")

        async def seen() -> bool:
            return shut_out(gateway, keys["acme"])

        await until(seen, what="the gateway refuses the tenant's key", timeout=5)
        assert not gateway.valid(principal), "its open sessions are closed by this"
        assert set(gateway._keys.opened) == {"globex"}
        with pytest.raises(GatewayError, match="shredded"):
            await gateway.register_agent(principal, AgentInfo("a"), Preferences(), [], {"project": "apollo"})
        assert not shut_out(gateway, keys["globex"])
    async with serving(migrated_dsn, tmp_path) as again:
        assert shut_out(again, keys["acme"])
        assert set(again._keys.opened) == {"globex"}


async def test_it_purges_its_own_cache_and_the_shared_one_whatever_the_command_can_reach(
    installation: Installation, migrated_dsn: str, tmp_path: Path, redis_url: str
) -> None:
    await tokens(installation)
    keys = {tenant: tenant_tag(tenant) + bytes(16) for tenant in ("acme", "globex")}
    async with serving(migrated_dsn, tmp_path, redis_url) as gateway, Redis.from_url(redis_url) as redis:
        lru, shared = gateway._purge._lru, gateway._purge._shared
        assert shared is not None
        for key in keys.values():
            lru.put(key, b"vector")
        shared.put_many([(key, b"vector") for key in keys.values()])

        async def cached() -> bool:
            return len(await redis.keys()) == 2

        await until(cached, what="both vectors are in the shared cache")
        done = await shred_tenant(installation, installation.ledger(None), "acme")
        assert done.cache == "none", "the command knows no cache"

        async def purged() -> bool:
            return await redis.keys() == [PREFIX + keys["globex"]]

        await until(purged, what="the gateway has purged the shared cache")
        assert [lru.get(key) for key in keys.values()] == [None, b"vector"]


async def test_a_tenants_key_that_it_cannot_unwrap_keeps_it_from_no_other(
    installation: Installation, migrated_dsn: str, tmp_path: Path
) -> None:
    async with serving(migrated_dsn, tmp_path) as gateway:
        foreign = MasterKey(os.urandom(32)).wrap("hooli", os.urandom(32))
        await put_if_absent(installation.log.pool, "hooli", foreign)
        keys = await tokens(installation)

        async def known() -> bool:
            return not shut_out(gateway, keys["globex"])

        await until(known, what="the gateway knows the new tenants")
        assert set(gateway._keys.opened) == {"acme", "globex"}
    with pytest.raises(SecretKeyError, match="tenant 'hooli'"):
        async with serving(migrated_dsn, tmp_path):
            pass


async def test_one_that_is_started_on_a_restored_database_obeys_the_ledger(
    installation: Installation, migrated_dsn: str, tmp_path: Path
) -> None:
    keys = await tokens(installation)
    ledger = installation.ledger(None)
    async with serving(migrated_dsn, tmp_path) as gateway:
        assert not shut_out(gateway, keys["acme"]), "the control: without a ledger the key works"
    note_shred(ledger, "acme")
    assert "acme" in await all_wrapped(installation.log.pool)
    async with serving(migrated_dsn, tmp_path) as gateway:
        assert shut_out(gateway, keys["acme"])
        assert set(gateway._keys.opened) == {"globex"}
    ledger.write_bytes(b"nonsense\n")
    async with serving(migrated_dsn, tmp_path) as gateway:
        assert not shut_out(gateway, keys["globex"]), "a ledger that cannot be read stops nobody else"


async def test_events_and_keys_of_a_shredded_tenant_are_shown_as_such(
    installation: Installation, migrated_dsn: str, tmp_path: Path
) -> None:
    await tokens(installation)
    await shred_tenant(installation, installation.ledger(None), "acme")
    settings = settings_of(migrated_dsn, tmp_path)
    assert settings.database_url is not None
    cli = Cli({"EMBERLOG_DATABASE_URL": settings.database_url.get_secret_value()})
    events = (await cli.json("events", "tail"))["events"]
    assert [(e["tenant"], e.get("shredded")) for e in events] == [
        ("acme", True), ("acme", True), ("globex", None), ("globex", None), ("acme", True),
    ]  # fmt: skip
    assert (await cli.json("log", "show", "1"))["shredded"] is True
    assert "shredded" not in await cli.json("log", "show", "3")
    assert [(k.tenant, k.revoked) for k in await installation.keys()] == [("acme", True), ("globex", False)]
    async with serving(migrated_dsn, tmp_path) as gateway:
        shown = gateway.reads.shredded
        assert shown == {"acme"}
