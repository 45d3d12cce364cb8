"""`emberlog log restored`, step by step, on a database that a backup has brought back."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from uuid import uuid4

import pytest

from adapters.postgres.pool import Connection
from adapters.postgres.tenant_keys import all_wrapped
from domain.cursor import decode_cursor, encode_cursor
from domain.errors import GatewayError
from domain.ports.event_log import InstanceFenced
from gateway.decisions import create_key, create_tenant
from gateway.house import NotReady
from gateway.manage import Installation
from gateway.restored import Step, restored
from gateway.shred_ledger import LedgerUnusable, note_shred
from tests.support.installing import installed


@pytest.fixture
async def installation(migrated_dsn: str, tmp_path: Path) -> AsyncIterator[Installation]:
    async with installed(migrated_dsn, tmp_path) as opened:
        async with opened.writer() as instance:
            for tenant in ("acme", "globex"):
                await create_tenant(opened.log, instance, opened.master(), tenant, actor="cli:test")
        yield opened


@pytest.fixture
def ledger(installation: Installation) -> Path:
    """What the backup does not know: acme was shredded, and so was a tenant that was made after it."""
    path = installation.ledger(None)
    for tenant in ("acme", "made-later"):
        note_shred(path, tenant)
    return path


async def types(installation: Installation) -> list[str]:
    return [event.type for event in await installation.log.read(0, 1000)]


class Crashed(Exception):
    pass


async def test_it_renews_the_log_frees_what_was_held_and_shreds_again(
    installation: Installation, ledger: Path, owner: Connection
) -> None:
    before, head = await installation.log.identity(), await installation.log.head()
    cursor = encode_cursor(before.incarnation, head)
    dead = await installation.log.register_instance("of the backup", 600)
    await owner.execute(
        "UPDATE emberlog.instances SET lease_until = now() - interval '1 second' WHERE fenced_at IS NULL"
    )
    await owner.execute("UPDATE projections.cursors SET owner = gen_random_uuid(), lease_until = 'infinity'")
    done = await restored(installation, ledger)

    after = await installation.log.identity()
    assert after.installation == before.installation
    assert (done.previous, done.incarnation) == (str(before.incarnation), str(after.incarnation))
    with pytest.raises(GatewayError, match="before it was restored: start from the beginning"):
        decode_cursor(cursor, after.incarnation, await installation.log.head())
    assert done.fenced == 1
    with pytest.raises(InstanceFenced):
        await installation.log.renew_instance(dead, 60)
    assert await owner.fetchval("SELECT count(*) FROM projections.cursors WHERE owner IS NOT NULL") == 0
    assert (done.shredded, done.wiped) == (["acme", "made-later"], True)
    assert set(await all_wrapped(installation.log.pool)) == {"globex"}
    assert await types(installation) == [*["tenant.created"] * 2, *["tenant.shredded"] * 2, "log.restored"]
    async with installation.writer() as instance:
        with pytest.raises(GatewayError, match="already exists"):
            await create_tenant(installation.log, instance, installation.master(), "made-later", actor="cli:test")
        await create_key(installation.log, instance, "globex", ["agent"], actor="cli:test")


@pytest.mark.parametrize("last", list(Step))
async def test_a_run_after_a_crash_finishes_and_no_key_is_there_meanwhile(
    installation: Installation, ledger: Path, last: Step
) -> None:
    def crash(step: Step) -> None:
        if step is last:
            raise Crashed

    with pytest.raises(Crashed):
        await restored(installation, ledger, crash)
    assert set(await all_wrapped(installation.log.pool)) == {"globex"}
    await restored(installation, ledger)
    assert (await types(installation))[-3:] == ["tenant.shredded", "tenant.shredded", "log.restored"]
    assert (await restored(installation, ledger)).shredded == []


async def test_it_is_refused_while_somebody_holds_a_lease(installation: Installation, ledger: Path) -> None:
    identity = await installation.log.identity()
    instance = await installation.log.register_instance("gateway there", 30)
    with pytest.raises(NotReady, match=r"gateway there\): stop them first.*wait \d+ s"):
        await restored(installation, ledger)
    assert await installation.log.identity() == identity
    assert "acme" in await all_wrapped(installation.log.pool)
    await installation.log.fence_instance(instance)
    assert (await restored(installation, ledger)).shredded == ["acme", "made-later"]


async def test_without_a_ledger_it_says_so_and_with_a_damaged_one_it_does_nothing(
    installation: Installation, tmp_path: Path
) -> None:
    done = await restored(installation, tmp_path / "none")
    assert (done.ledger, done.shredded) == (False, [])
    damaged = tmp_path / "damaged"
    damaged.write_text(f"{uuid4()}\n")
    identity = await installation.log.identity()
    with pytest.raises(LedgerUnusable, match="line 1"):
        await restored(installation, damaged)
    assert await installation.log.identity() == identity
