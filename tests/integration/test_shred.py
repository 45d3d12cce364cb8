"""Shredding a tenant: what is destroyed, in which order, and what is left of it."""

from __future__ import annotations

import asyncio
import json
import os
import re
import stat
import sys
import time
from collections.abc import AsyncIterator
from pathlib import Path

import msgspec
import pytest

from adapters.postgres.pool import Connection, connect
from adapters.postgres.seals import seal
from adapters.postgres.tenant_keys import all_wrapped, destroy, put_if_absent, wipe_destroyed
from adapters.redis.vector_cache import PREFIX, RedisVectorCache
from domain.content_hash import content_hash
from domain.errors import GatewayError
from domain.events import AgentRegistered, EmbeddingRequested, Preferences, encode_data
from domain.fingerprint import body_fingerprint, printable, tenant_tag, text_fingerprint
from domain.ports.event_log import NewEvent, StoredEvent
from gateway.decisions import append_decision, create_key, create_tenant
from gateway.manage import Installation
from gateway.secrets import SecretKeyError, seal_metadata
from gateway.shred_ledger import LedgerUnusable, note_shred, read_ledger
from gateway.shredding import Step, shred_tenant
from tests.support.cli import Cli
from tests.support.databases import with_user
from tests.support.dictionary import attack, keys_in, unprinted
from tests.support.installing import installed
from tests.support.leaks import dump

TEXTS = ["the launch code is swordfish", "attack at dawn"]
GUESSES = ["hello world", *TEXTS, "the quick brown fox"]
OPTIONS, SPACE = b"\x9a", "m@1"


@pytest.fixture
async def installation(migrated_dsn: str, tmp_path: Path) -> AsyncIterator[Installation]:
    async with installed(migrated_dsn, tmp_path) as opened, opened.writer() as instance:
        for tenant in ("acme", "globex"):
            await create_tenant(opened.log, instance, opened.master(), tenant, actor="cli:test")
        yield opened


@pytest.fixture
def ledger(installation: Installation) -> Path:
    return installation.ledger(None)


async def shreds(installation: Installation) -> list[StoredEvent]:
    return [e for e in await installation.log.read(0, 1000) if e.type == "tenant.shredded"]


class Crashed(Exception):
    pass


@pytest.mark.parametrize("last", list(Step))
async def test_a_run_after_a_crash_at_any_step_finishes_what_was_left(
    installation: Installation, ledger: Path, owner: Connection, last: Step
) -> None:
    def crash(step: Step) -> None:
        if step is last:
            raise Crashed

    with pytest.raises(Crashed):
        await shred_tenant(installation, ledger, "acme", crash)
    done = list(Step).index(last)
    assert "acme" in read_ledger(ledger), "nothing is done that the ledger does not say"
    assert len(await shreds(installation)) == (done >= 1)
    assert ("acme" in await all_wrapped(installation.log.pool)) == (done < 2)

    finished = await shred_tenant(installation, ledger, "acme")
    assert finished.already == (done >= 2)
    [event] = await shreds(installation)
    assert (event.stream, event.version, event.event_id) == ("tenant/acme", 2, read_ledger(ledger)["acme"].event.bytes)
    assert set(await all_wrapped(installation.log.pool)) == {"globex"}
    row = await owner.fetchrow("SELECT wrapped, shredded_at FROM emberlog.tenant_keys WHERE tenant = 'acme'")
    assert row is not None
    assert row["wrapped"] is None
    assert row["shredded_at"] is not None
    again = await shred_tenant(installation, ledger, "acme")
    assert (again.already, again.event) == (True, finished.event)
    assert len(await shreds(installation)) == 1
    assert ledger.read_bytes().count(b"\n") == 1


async def test_a_shredded_name_is_never_free_again_and_gets_no_key(
    installation: Installation, ledger: Path, owner: Connection
) -> None:
    await shred_tenant(installation, ledger, "acme")
    async with installation.writer() as instance:
        with pytest.raises(GatewayError, match="already exists"):
            await create_tenant(installation.log, instance, installation.master(), "acme", actor="cli:test")
    assert await put_if_absent(installation.log.pool, "acme", b"another") is None
    with pytest.raises(GatewayError, match="was shredded"):
        await installation.require_tenant("acme", alive=True)
    assert [(t.id, t.shredded_at is None) for t in await installation.tenants()] == [("acme", False), ("globex", True)]
    assert await destroy(owner, "never-made"), (
        "a name that the ledger knows is taken even where the log does not know it"
    )
    assert await put_if_absent(installation.log.pool, "never-made", b"key") is None


async def test_a_decision_made_meanwhile_does_not_stop_it(installation: Installation, ledger: Path) -> None:
    async with installation.writer() as instance:
        await asyncio.gather(
            shred_tenant(installation, ledger, "acme"),
            *(create_key(installation.log, instance, "acme", ["agent"], actor="cli:test") for _ in range(5)),
        )
    assert len(await shreds(installation)) == 1


async def test_who_is_unknown_is_not_shredded_and_not_noted(installation: Installation, ledger: Path) -> None:
    with pytest.raises(GatewayError, match="there is no tenant 'nobody'"):
        await shred_tenant(installation, ledger, "nobody")
    assert not ledger.exists()


async def test_the_log_keeps_its_hashes_and_its_chain(
    installation: Installation, ledger: Path, owner: Connection
) -> None:
    key = installation.master().unwrap("acme", (await all_wrapped(installation.log.pool))["acme"])
    async with installation.writer() as instance:
        data = AgentRegistered("a1", Preferences(), metadata=seal_metadata(key, b'{"project":"apollo"}'))
        await append_decision(installation.log, instance, "acme", "agent/acme/a1", data)
    await seal(installation.log.pool, rest_seconds=0)
    before = await installation.log.read(0, 1000)
    seals = await owner.fetch("SELECT * FROM emberlog.seals ORDER BY 1")
    await shred_tenant(installation, ledger, "acme")
    after = await installation.log.read(0, 1000)
    assert after[: len(before)] == before
    assert all(content_hash(event) == event.content_hash for event in after)
    assert await owner.fetch("SELECT * FROM emberlog.seals ORDER BY 1") == seals


def requested(tenant: str, key: bytes, text: str, number: int) -> NewEvent:
    fingerprint = body_fingerprint(key, OPTIONS, [text])
    data = EmbeddingRequested(
        request_id=f"r{number}", agent="a", attempt=1, at=1, instance="i", fingerprint=printable(fingerprint), model="m",
        space=SPACE, inputs=1, reserved_tokens=1,
    )  # fmt: skip
    return NewEvent(
        key=os.urandom(16), event_id=os.urandom(16), tenant=tenant, stream=f"request/{tenant}/r{number}", type=data.TYPE,
        data=encode_data(data), schema_version=1, fingerprint=fingerprint,
    )  # fmt: skip


async def test_a_dictionary_finds_no_text_without_the_key_and_after_the_shred_nobody_has_the_key(
    installation: Installation, ledger: Path, migrated_dsn: str
) -> None:
    master = installation.master()
    key = master.unwrap("acme", (await all_wrapped(installation.log.pool))["acme"])
    async with installation.writer() as instance:
        await installation.log.append(instance, [requested("acme", key, text, n) for n, text in enumerate(TEXTS)])

    async def found(*, with_master: bool) -> set[str]:
        """What somebody finds who has the database, the source and perhaps the installation's key."""
        content = await dump(migrated_dsn)
        prints = {unprinted(p) for p in re.findall(r'fingerprint"+: "+([\w-]{22})"', "\n".join(content.values()))}
        assert len(prints) == len(TEXTS)
        keys = keys_in(content, ["acme"])
        if with_master:
            for word in re.findall(r"\\x([0-9a-f]{100,})", content["emberlog.tenant_keys"]):
                for tenant in ("acme", "globex"):
                    try:
                        keys.add(master.unwrap(tenant, bytes.fromhex(word)))
                    except SecretKeyError:
                        continue
        return attack(prints, GUESSES, [OPTIONS], [SPACE], keys)

    assert await found(with_master=False) == set()
    assert await found(with_master=True) == set(TEXTS), "the control: with the key the attack does find them"
    await shred_tenant(installation, ledger, "acme")
    assert await found(with_master=False) == set()
    assert await found(with_master=True) == set()


async def test_no_dead_row_of_the_table_keeps_the_destroyed_key(installation: Installation, owner: Connection) -> None:
    wrapped = (await all_wrapped(installation.log.pool))["acme"]

    async def on_disk() -> bool:
        await owner.execute("CHECKPOINT")
        file = await owner.fetchval("SELECT pg_read_binary_file(pg_relation_filepath('emberlog.tenant_keys'))")
        return wrapped in file

    assert await destroy(owner, "acme")
    assert await on_disk(), "the control: destroying alone leaves it in the file"
    assert await wipe_destroyed(owner)
    assert not await on_disk()


async def test_it_says_when_an_older_transaction_keeps_the_dead_row(
    installation: Installation, ledger: Path, owner: Connection, migrated_dsn: str
) -> None:
    reader: Connection = await connect(migrated_dsn, "a long report", role=False)
    report = reader.transaction(isolation="repeatable_read")
    await report.start()
    await reader.fetchval("SELECT count(*) FROM emberlog.events")
    done = await shred_tenant(installation, ledger, "acme")
    assert done.wiped is False
    await report.rollback()
    await reader.close()
    again = await shred_tenant(installation, ledger, "acme")
    assert (again.already, again.wiped) == (True, True)


async def test_the_shared_cache_forgets_the_tenant_and_nobody_else(
    migrated_dsn: str, tmp_path: Path, redis_url: str, installation: Installation
) -> None:
    from redis.asyncio import Redis

    cache = RedisVectorCache(redis_url, 60)
    keys = {t: tenant_tag(t) + text_fingerprint(b"k" * 32, SPACE, None, "text") for t in ("acme", "globex")}
    cache.put_many([(key, b"vector") for key in keys.values()])
    await cache.close()
    async with installed(migrated_dsn, tmp_path, redis_url=redis_url) as with_cache:
        done = await shred_tenant(with_cache, with_cache.ledger(None), "acme")
    assert done.cache == "purged"
    async with Redis.from_url(redis_url) as redis:
        assert await redis.keys() == [PREFIX + keys["globex"]]
    async with installed(migrated_dsn, tmp_path, redis_url=f"unix://{tmp_path}/nobody.sock") as without:
        assert (await shred_tenant(without, without.ledger(None), "acme")).cache == "out of reach"


def test_the_ledger_is_private_and_only_grows(tmp_path: Path) -> None:
    path = tmp_path / "folder" / "shredded.ndjson"
    first = note_shred(path, "acme")
    content = path.read_bytes()
    assert stat.S_IMODE(path.stat().st_mode) == 0o640
    second = note_shred(path, "globex")
    assert path.read_bytes().startswith(content)
    assert note_shred(path, "acme") == first
    assert read_ledger(path) == {"acme": first, "globex": second}
    assert time.strptime(first.time, "%Y-%m-%dT%H:%M:%SZ")
    assert json.loads(content) == {"tenant": "acme", "time": first.time, "event": str(first.event)}


def test_a_line_that_a_crash_cut_short_does_not_count_and_one_that_was_changed_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "shredded.ndjson"
    first = note_shred(path, "acme")
    with path.open("ab") as file:
        file.write(b'{"tenant":"glo')
    assert read_ledger(path) == {"acme": first}
    second = note_shred(path, "globex")
    assert read_ledger(path) == {"acme": first, "globex": second}
    path.write_bytes(path.read_bytes().replace(b"acme", b'ac"me'))
    with pytest.raises(LedgerUnusable, match="damaged at line 1"):
        read_ledger(path)
    with pytest.raises(LedgerUnusable, match="damaged at line 1"):
        note_shred(path, "initech")


async def test_on_a_terminal_the_name_must_be_typed(migrated_dsn: str, tmp_path: Path) -> None:
    async with installed(migrated_dsn, tmp_path) as opened, opened.writer() as instance:
        await create_tenant(opened.log, instance, opened.master(), "acme", actor="cli:test")
    cli = Cli(
        {
            "EMBERLOG_DATABASE_URL": with_user(migrated_dsn, "emberlog_gateway"),
            "EMBERLOG_DATABASE_OWNER_URL": migrated_dsn,
            "EMBERLOG_ARCHIVE_DIR": str(tmp_path),
        }
    )

    async def typed(line: bytes) -> tuple[int | None, str]:
        terminal, side = os.openpty()
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "gateway.cli", "tenants", "shred", "acme",
            env=cli.environment, stdin=side, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
        )  # fmt: skip
        os.write(terminal, line)
        async with asyncio.timeout(60):
            out, error = await process.communicate()
        os.close(side)
        os.close(terminal)
        return process.returncode, (out + error).decode()

    code, said = await typed(b"amce\n")
    assert code == 1
    assert "nothing was shredded" in said
    assert not (tmp_path / "shredded.ndjson").exists()
    code, said = await typed(b"acme\n")
    assert code == 0
    assert "shredded tenant acme" in said


async def test_the_command_asks_first_and_needs_a_ledger_and_the_owner(migrated_dsn: str, tmp_path: Path) -> None:
    async with installed(migrated_dsn, tmp_path) as opened, opened.writer() as instance:
        await create_tenant(opened.log, instance, opened.master(), "acme", actor="cli:test")
    settings = {
        "EMBERLOG_DATABASE_URL": with_user(migrated_dsn, "emberlog_gateway"),
        "EMBERLOG_DATABASE_OWNER_URL": migrated_dsn,
    }
    cli = Cli(settings)
    unasked = await cli.run("tenants", "shred", "acme")
    assert (unasked.code, "give --yes" in unasked.error) == (2, True)
    assert "--ledger FILE" in (await cli.run("tenants", "shred", "acme", "--yes")).error
    ledger = tmp_path / "ledger"
    of_the_app = Cli({"EMBERLOG_DATABASE_URL": settings["EMBERLOG_DATABASE_URL"]})
    told = await of_the_app.run("tenants", "shred", "acme", "--yes", "--ledger", str(ledger))
    assert "only the owner" in told.error
    assert not ledger.exists()
    done = await cli.json("tenants", "shred", "acme", "--yes", "--ledger", str(ledger))
    assert (done["id"], done["already"], done["cache"]) == ("acme", False, "none")
    told = await cli.run("tenants", "shred", "acme", "--yes", "--ledger", str(ledger))
    assert told.out == "tenant acme was shredded already\n"
    assert "was shredded" in (await cli.run("keys", "create", "--tenant", "acme", "--scopes", "agent")).error
    assert msgspec.json.decode(ledger.read_bytes(), type=dict)["event"] == done["event"]
