"""Rotating the installation's key: whatever happens halfway, every tenant's key can be read."""

from __future__ import annotations

import asyncio
import base64
import os
import stat
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from adapters.postgres.pool import Connection, connect
from adapters.postgres.tenant_keys import all_wrapped, put_if_absent
from gateway.decisions import create_tenant
from gateway.house import NotReady
from gateway.manage import Installation
from gateway.rotation import Step, forget_old, rotate_master
from gateway.secrets import MasterKey, SecretKeyError
from gateway.shredding import shred_tenant
from tests.support.cli import Cli
from tests.support.databases import with_user
from tests.support.installing import installed

TENANTS = ["acme", "globex", "initech"]


@pytest.fixture
async def installation(migrated_dsn: str, tmp_path: Path) -> AsyncIterator[Installation]:
    async with installed(migrated_dsn, tmp_path) as opened, opened.writer() as instance:
        for tenant in TENANTS:
            await create_tenant(opened.log, instance, opened.master(), tenant, actor="cli:test")
        yield opened


@pytest.fixture
def key_file(tmp_path: Path) -> Path:
    return tmp_path / "secret.key"


async def keys(installation: Installation, master: MasterKey | None = None) -> dict[str, bytes]:
    """Every tenant's key, unwrapped. Raises `SecretKeyError` where one cannot be."""
    master = master or installation.master()
    return {t: master.unwrap(t, wrapped) for t, wrapped in (await all_wrapped(installation.log.pool)).items()}


async def rotations(installation: Installation) -> int:
    return sum(event.type == "master_key.rotated" for event in await installation.log.read(0, 1000))


class Crashed(Exception):
    pass


async def test_a_new_key_wraps_every_tenants_key_and_the_old_one_is_kept_until_it_is_forgotten(
    installation: Installation, key_file: Path
) -> None:
    before, old = await keys(installation), installation.master()
    done = await rotate_master(installation, may_make=True)
    assert (done.made, done.rewrapped, done.tenants, done.keys, done.wiped) == (True, 3, 3, 2, True)
    assert await keys(installation) == before
    assert stat.S_IMODE(key_file.stat().st_mode) == 0o600
    with pytest.raises(SecretKeyError):
        await keys(installation, old)
    again = await rotate_master(installation, may_make=True)
    assert (again.made, again.rewrapped, again.keys) == (False, 0, 2)
    assert await rotations(installation) == 1
    assert await forget_old(installation) == 1
    assert await forget_old(installation) == 0
    assert installation.master().count == 1
    assert await keys(installation) == before


@pytest.mark.parametrize("last", list(Step))
async def test_after_a_crash_at_any_step_all_can_be_read_and_a_run_finishes(
    installation: Installation, last: Step
) -> None:
    before = await keys(installation)

    def crash(step: Step) -> None:
        if step is last:
            raise Crashed

    with pytest.raises(Crashed):
        await rotate_master(installation, may_make=True, on_step=crash)
    assert await keys(installation) == before
    if last is not Step.COMMITTED:
        with pytest.raises(NotReady, match="3 tenants' keys are still wrapped with an older key"):
            await forget_old(installation)
    done = await rotate_master(installation, may_make=True)
    assert (done.made, done.keys) == (False, 2), "no third key is made"
    assert await rotations(installation) >= 1
    await forget_old(installation)
    assert await keys(installation) == before


async def test_two_runs_at_once_make_one_key(installation: Installation) -> None:
    before = await keys(installation)
    one, other = await asyncio.gather(*(rotate_master(installation, may_make=True) for _ in range(2)))
    assert sorted([one.made, other.made]) == [False, True]
    assert installation.master().count == 2
    assert await keys(installation) == before


async def test_a_tenant_made_with_the_key_of_before_is_wrapped_with_the_one_of_now(installation: Installation) -> None:
    stale = installation.master()
    await rotate_master(installation, may_make=True)
    await forget_old(installation)
    async with installation.writer() as instance:
        await create_tenant(installation.log, instance, stale, "late", actor="cli:test")
    assert "late" in await keys(installation)


async def test_a_tenants_key_that_the_file_does_not_open_stops_it_before_anything_is_written(
    installation: Installation, key_file: Path
) -> None:
    foreign = MasterKey(os.urandom(32)).wrap("hooli", os.urandom(32))
    await put_if_absent(installation.log.pool, "hooli", foreign)
    content, wrapped = key_file.read_bytes(), await all_wrapped(installation.log.pool)
    with pytest.raises(SecretKeyError, match="tenant 'hooli'"):
        await rotate_master(installation, may_make=True)
    assert key_file.read_bytes() == content
    assert await all_wrapped(installation.log.pool) == wrapped


async def test_a_shredded_tenant_gets_no_key(installation: Installation) -> None:
    await shred_tenant(installation, installation.ledger(None), "acme")
    assert (await rotate_master(installation, may_make=True)).tenants == 2
    assert set(await all_wrapped(installation.log.pool)) == {"globex", "initech"}


async def test_with_a_database_of_ones_own_the_new_key_is_put_in_front_by_its_operator(
    installation: Installation, key_file: Path, migrated_dsn: str
) -> None:
    cli = Cli(
        {
            "EMBERLOG_DATABASE_URL": with_user(migrated_dsn, "emberlog_gateway"),
            "EMBERLOG_DATABASE_OWNER_URL": migrated_dsn,
            "EMBERLOG_SECRET_KEY_FILE": str(key_file),
        }
    )
    before, content = await keys(installation), key_file.read_bytes()
    assert "on a line in front of the old one" in (await cli.run("keys", "rotate-master")).error
    assert key_file.read_bytes() == content
    key_file.write_bytes(base64.b64encode(os.urandom(32)) + b"\n" + content)
    done = await cli.json("keys", "rotate-master")
    assert done == {"made": False, "rewrapped": 3, "tenants": 3, "keys": 2, "wiped": True}
    assert await cli.json("keys", "rotate-master", "--forget-old") == {"forgotten": 1}
    assert await keys(installation) == before


async def test_no_dead_row_keeps_a_key_as_the_old_one_wrapped_it(installation: Installation, migrated_dsn: str) -> None:
    wrapped = (await all_wrapped(installation.log.pool)).values()
    await rotate_master(installation, may_make=True)
    owner: Connection = await connect(migrated_dsn, "owner", role=False)
    await owner.execute("CHECKPOINT")
    file = await owner.fetchval("SELECT pg_read_binary_file(pg_relation_filepath('emberlog.tenant_keys'))")
    await owner.close()
    assert not any(old in file for old in wrapped)
