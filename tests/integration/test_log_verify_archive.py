"""Verification goes on through the archive: seals hold for events in segment files as for those in the database."""

from __future__ import annotations

import gzip
from collections.abc import AsyncIterator
from hashlib import sha256
from pathlib import Path
from uuid import UUID

import msgspec
import pytest

from adapters.archive.lines import decode_line, encode_line
from adapters.embedded import EmbeddedServices
from adapters.postgres import verify as module
from adapters.postgres.event_log import PostgresEventLog
from adapters.postgres.pool import Connection, connect
from adapters.postgres.seals import seal
from adapters.postgres.search import position_of
from adapters.postgres.verify import verify
from domain.content_hash import content_hash
from domain.verification import Damage, Finding, Verdict
from tests.support.archiving import WIDTH, age, archive_all, fill, migrate_narrow
from tests.support.databases import with_user

COUNT = 3 * WIDTH + 5


@pytest.fixture
async def owner_dsn(postgres_dsn: str, services: EmbeddedServices) -> str:
    await migrate_narrow(postgres_dsn)
    await services.grant_app_role()
    return postgres_dsn


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "archive"


@pytest.fixture
async def log(owner_dsn: str, folder: Path) -> AsyncIterator[PostgresEventLog]:
    made = await PostgresEventLog.connect(with_user(owner_dsn, "emberlog_gateway"), archive_dir=folder)
    yield made
    await made.close()


@pytest.fixture
async def owner(owner_dsn: str) -> AsyncIterator[Connection]:
    connection = await connect(owner_dsn, "owner", role=False)
    yield connection
    await connection.close()


@pytest.fixture
async def old_log(log: PostgresEventLog, owner_dsn: str) -> PostgresEventLog:
    """35 events in partitions of 10, of which 30 may be archived; seals over 1-25 and 26-35 cross their borders."""
    instance: UUID = await log.register_instance("integration tests", 600)
    await fill(log, instance, 25)
    await age(owner_dsn, 25)
    assert await seal(log.pool, rest_seconds=0) == 1
    await fill(log, instance, COUNT - 25)
    return log


async def check(log: PostgresEventLog) -> Verdict:
    return await verify(log.pool, log)


async def archive(owner_dsn: str, folder: Path) -> None:
    await archive_all(owner_dsn, folder)
    connection = await connect(owner_dsn, "owner", role=False)
    try:
        assert await connection.fetchval("SELECT min(position) FROM emberlog.events") == 2 * WIDTH + 1
    finally:
        await connection.close()


async def test_a_log_of_which_a_part_is_archived_is_intact(
    old_log: PostgresEventLog, owner_dsn: str, folder: Path
) -> None:
    await archive(owner_dsn, folder)
    verdict = await check(old_log)
    assert verdict.intact, verdict.finding
    assert (verdict.head, verdict.events, verdict.seals) == (
        COUNT + 2,
        COUNT + 2,
        1,
    )  # two events tell of the archiving


async def test_what_is_archived_during_the_walk_is_read_from_the_archive(
    old_log: PostgresEventLog, owner_dsn: str, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sealed = module._Walk._sealed

    async def archived_first(walk: module._Walk, newest: int) -> Finding | None:
        await archive(owner_dsn, folder)
        return await sealed(walk, newest)

    monkeypatch.setattr(module._Walk, "_sealed", archived_first)
    verdict = await check(old_log)
    assert verdict.intact, verdict.finding
    assert verdict.events == verdict.head == COUNT


async def test_a_segment_file_that_was_changed_or_lost_is_named(
    old_log: PostgresEventLog, owner_dsn: str, folder: Path
) -> None:
    await archive(owner_dsn, folder)
    file = sorted(folder.iterdir())[1]
    whole = file.read_bytes()
    file.write_bytes(whole[:-9] + bytes(9))
    finding = (await check(old_log)).finding
    assert finding is not None
    assert (finding.damage, finding.position) == (Damage.EVENT_MISSING, WIDTH + 1)
    assert file.name in finding.message
    file.unlink()
    finding = (await check(old_log)).finding
    assert finding is not None
    assert "is not there" in finding.message


async def rewrite(owner: Connection, folder: Path, position: int, *, rehashed: bool) -> None:
    """Change an archived event, and the digests of its segment so that they fit, as only the owner of both can."""
    await owner.execute("ALTER TABLE emberlog.segments DISABLE TRIGGER append_only")
    row = await owner.fetchrow("SELECT file, first_position FROM emberlog.segments WHERE $1 BETWEEN first_position AND last_position", position)  # fmt: skip
    assert row is not None
    lines = gzip.decompress((folder / row["file"]).read_bytes()).splitlines(keepends=True)
    event = msgspec.structs.replace(decode_line(lines[position - row["first_position"]]), data=b'{"n": 0}')
    if rehashed:
        event = msgspec.structs.replace(event, content_hash=content_hash(event))
    lines[position - row["first_position"]] = encode_line(event)
    packed = gzip.compress(b"".join(lines), mtime=0)
    (folder / row["file"]).write_bytes(packed)
    digest = sha256(packed).digest()
    await owner.execute(
        "UPDATE emberlog.segments SET bytes = $2, sha256 = $3, member_hashes = ARRAY[$3::bytea] WHERE file = $1",
        row["file"], len(packed), digest,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("rehashed", "damage"), [(False, Damage.EVENT_CHANGED), (True, Damage.EVENT_REPLACED)], ids=["", "hashed anew"]
)
async def test_an_archived_event_rewritten_with_its_segments_digests_is_named(
    old_log: PostgresEventLog, owner_dsn: str, owner: Connection, folder: Path, rehashed: bool, damage: Damage
) -> None:
    await archive(owner_dsn, folder)
    await rewrite(owner, folder, 14, rehashed=rehashed)
    finding = (await check(old_log)).finding
    assert finding is not None
    assert (finding.damage, finding.position) == (damage, 14)


async def test_an_archived_event_is_found_by_its_id(old_log: PostgresEventLog, owner_dsn: str, folder: Path) -> None:
    ids = {event.position: UUID(bytes=event.event_id) for event in await old_log.read(0, 100)}
    await archive(owner_dsn, folder)
    dsn = with_user(owner_dsn, "emberlog_gateway")
    assert await position_of(dsn, old_log, ids[14]) == 14
    assert await position_of(dsn, old_log, ids[30]) == 30
    assert await position_of(dsn, old_log, UUID(int=2**128 - 1)) is None
