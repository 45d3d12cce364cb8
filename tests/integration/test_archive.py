"""Archived events: read as before, found damaged where they are, and never lost on the way."""

from __future__ import annotations

import asyncio
import gzip
import json
import sys
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from pathlib import Path
from uuid import UUID

import asyncpg
import pytest

from adapters.archive import archiver as archiver_module
from adapters.archive import segment as segment_module
from adapters.archive.archiver import Archiver, ArchiveRefused, Partition, Step, archive_due
from adapters.postgres.event_log import PostgresEventLog
from adapters.postgres.pool import Connection, connect
from domain.events import encode_data
from domain.ports.event_log import LogDamaged, LogUnavailable, StoredEvent
from projections.runner import Runner
from projections.usage import USAGE
from tests.conformance.conftest import new_event
from tests.support.archiving import WIDTH, age, archive_all, fill, read_all
from tests.support.databases import with_user
from tests.support.projecting import generated

OLD = 10 * WIDTH
COUNT = OLD + 5


@pytest.fixture
def owner_dsn(narrow_dsn: str) -> str:
    return narrow_dsn


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


async def test_an_archived_log_reads_as_before_byte_for_byte(
    log: PostgresEventLog, instance: UUID, owner: Connection, owner_dsn: str, folder: Path
) -> None:
    await fill(log, instance, COUNT)
    await age(owner_dsn, OLD)
    before, decisions = await read_all(log), await log.read_decisions(0, 1000)
    segments = await archive_all(owner_dsn, folder)
    assert [(s.first_position, s.last_position) for s in segments] == [
        (n * WIDTH + 1, n * WIDTH + WIDTH) for n in range(10)
    ]
    assert await owner.fetchval("SELECT min(position) FROM emberlog.events") == 10 * WIDTH + 1
    for page in (1, 7, WIDTH, 1000):
        assert (await read_all(log, page))[:COUNT] == before
    assert await log.read_decisions(0, 1000) == decisions
    archived = [event for event in await read_all(log) if event.type == "log.archived"]
    assert len(archived) == 10


async def filled(log: PostgresEventLog, instance: UUID, owner_dsn: str) -> list[StoredEvent]:
    """The events of a log whose first ten partitions are old."""
    await fill(log, instance, COUNT)
    await age(owner_dsn, OLD)
    return await read_all(log)


# -- reading ------------------------------------------------------------------------------------------------------------


async def test_appending_goes_on_where_it_was_right_after_the_archiving(
    log: PostgresEventLog, instance: UUID, owner_dsn: str, folder: Path
) -> None:
    await filled(log, instance, owner_dsn)
    await archive_all(owner_dsn, folder)
    head = await log.head()
    assert head == COUNT + 10  # each segment is told by an event
    [appended] = await log.append(instance, [new_event()])
    assert appended.position == head + 1
    assert [event.position for event in await read_all(log)] == list(range(1, head + 2))


async def test_a_log_whose_newest_partition_is_full_keeps_it_and_its_head(
    log: PostgresEventLog, instance: UUID, owner_dsn: str, owner: Connection, folder: Path
) -> None:
    await fill(log, instance, 3 * WIDTH)
    await age(owner_dsn, 3 * WIDTH)
    # By the clock alone all of it is old; by the log's own time the newest event is now.
    assert await archive_all(owner_dsn, folder) == []
    await log.append(instance, [new_event()])
    assert len(await archive_all(owner_dsn, folder)) == 3
    assert await log.head() == 3 * WIDTH + 4
    assert await owner.fetchval("SELECT min(position) FROM emberlog.events") == 3 * WIDTH + 1


async def test_a_reader_from_another_process_finds_what_was_archived_meanwhile(
    log: PostgresEventLog, instance: UUID, owner_dsn: str, folder: Path
) -> None:
    before = await filled(log, instance, owner_dsn)
    assert await log.read(0, WIDTH) == before[:WIDTH]
    await archive_all(owner_dsn, folder)
    assert await log.read(WIDTH, WIDTH) == before[WIDTH : 2 * WIDTH]
    assert await log.read(OLD - 3, 6) == before[OLD - 3 : OLD + 3]
    assert await log.read(await log.head(), 5) == []


async def test_paging_forward_unpacks_each_member_once(
    log: PostgresEventLog, instance: UUID, owner_dsn: str, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(archiver_module, "MEMBER_EVENTS", 4)
    before = await filled(log, instance, owner_dsn)
    segments = await archive_all(owner_dsn, folder)
    assert {len(segment.members) for segment in segments} == {3}
    unpacked: list[bytes] = []
    unpack = gzip.decompress

    def counted(data: bytes) -> bytes:
        unpacked.append(data)
        return unpack(data)

    monkeypatch.setattr(segment_module.gzip, "decompress", counted)  # type: ignore[attr-defined]
    assert (await read_all(log, 1))[:COUNT] == before
    assert len(unpacked) == 30


async def test_zcat_shows_the_lines_and_their_hashes_can_be_recomputed(
    log: PostgresEventLog, instance: UUID, owner_dsn: str, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(archiver_module, "MEMBER_EVENTS", 4)
    before = await filled(log, instance, owner_dsn)
    segment = (await archive_all(owner_dsn, folder))[1]
    path = folder / segment.file
    assert sha256(path.read_bytes()).digest() == segment.sha256
    lines = gzip.decompress(path.read_bytes()).splitlines()
    for line, event in zip(lines, before[WIDTH : 2 * WIDTH], strict=True):
        shown = json.loads(line)
        assert shown["position"] == event.position
        hashed = " ".join(
            str(part)
            for part in (
                shown["position"], shown["event_id"], shown["version"] or "-", shown["schema_version"], shown["recorded_at"],
                *(len(shown[name].encode()) for name in ("tenant", "stream", "type")), "",
            )
        ).encode()  # fmt: skip
        text = (shown["tenant"] + shown["stream"] + shown["type"]).encode() + line.partition(b',"data":')[2][:-1]
        assert sha256(hashed + text).hexdigest() == shown["content_hash"]


# -- damage -------------------------------------------------------------------------------------------------------------


async def test_a_flipped_byte_is_found_and_located_and_the_rest_stays_readable(
    log: PostgresEventLog, instance: UUID, owner_dsn: str, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(archiver_module, "MEMBER_EVENTS", 4)
    before = await filled(log, instance, owner_dsn)
    segment = (await archive_all(owner_dsn, folder))[2]
    path = folder / segment.file
    good = path.read_bytes()
    at = segment.members[1].offset + 20
    path.write_bytes(good[:at] + bytes([good[at] ^ 1]) + good[at + 1 :])
    assert await log.read(0, 24) == before[:24]
    with pytest.raises(
        LogDamaged, match=f"{segment.file} is damaged between bytes .* positions 25 to 28. Put the file back"
    ) as found:
        await log.read(24, 1)
    assert found.value.position == 25
    assert await log.read(28, 20) == before[28:48]
    path.write_bytes(good)
    assert await log.read(24, 1) == before[24:25]


async def test_a_missing_file_is_named_and_so_is_what_belongs_there(
    log: PostgresEventLog, instance: UUID, owner_dsn: str, folder: Path
) -> None:
    before = await filled(log, instance, owner_dsn)
    segment = (await archive_all(owner_dsn, folder))[0]
    (folder / segment.file).rename(folder / "elsewhere")
    with pytest.raises(LogDamaged, match=f"{segment.file} is not there. Put the file back .*{segment.sha256.hex()}"):
        await log.read(0, 1)
    (folder / "elsewhere").rename(folder / segment.file)
    assert await log.read(0, 1) == before[:1]


async def test_an_archive_that_cannot_be_read_just_now_is_out_of_reach_not_damaged(
    log: PostgresEventLog, instance: UUID, owner_dsn: str, folder: Path
) -> None:
    before = await filled(log, instance, owner_dsn)
    segment = (await archive_all(owner_dsn, folder))[0]
    (folder / segment.file).rename(folder / "elsewhere")
    (folder / segment.file).mkdir()  # what reading it raises is no more than what a mount that hangs does
    with pytest.raises(LogUnavailable, match=f"the archive is out of reach: .*{segment.file}: Is a directory"):
        await log.read(0, 1)
    (folder / segment.file).rmdir()
    (folder / "elsewhere").rename(folder / segment.file)
    assert await log.read(0, 1) == before[:1]


async def test_without_an_archive_folder_the_error_says_which_setting_is_missing(
    log: PostgresEventLog, instance: UUID, owner_dsn: str, folder: Path
) -> None:
    await filled(log, instance, owner_dsn)
    await archive_all(owner_dsn, folder)
    other = await PostgresEventLog.connect(with_user(owner_dsn, "emberlog_gateway"))
    with pytest.raises(LogDamaged, match="set EMBERLOG_ARCHIVE_DIR"):
        await other.read(0, 1)
    assert (await other.read(OLD, 1))[0].position == OLD + 1
    await other.close()


async def test_a_changed_event_is_not_archived(
    log: PostgresEventLog, instance: UUID, owner_dsn: str, owner: Connection, folder: Path
) -> None:
    await filled(log, instance, owner_dsn)
    await owner.execute("ALTER TABLE emberlog.events_000000000001 DISABLE TRIGGER append_only")
    await owner.execute("UPDATE emberlog.events_000000000001 SET tenant = 'evil' WHERE position = 7")
    with pytest.raises(LogDamaged, match="position 7 is not as it was written") as found:
        await archive_all(owner_dsn, folder)
    assert found.value.position == 7
    assert await owner.fetchval("SELECT count(*) FROM emberlog.segments") == 0
    assert list(folder.iterdir()) == []


# -- crashes ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("step", Step)
async def test_a_run_that_is_killed_at_any_step_loses_nothing_and_the_next_completes_it(
    log: PostgresEventLog, instance: UUID, owner_dsn: str, owner: Connection, folder: Path, step: Step
) -> None:
    before = await filled(log, instance, owner_dsn)
    child = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "tests.support.archive_and_die", owner_dsn, str(folder), step
    )
    assert await child.wait() == -9
    assert (await read_all(log))[:COUNT] == before
    await until_alone(owner)
    moved = await owner.fetchval("SELECT count(*) FROM emberlog.segments")
    assert moved == (1 if step is Step.MOVED else 0)
    assert len(await archive_all(owner_dsn, folder)) == 10 - moved
    assert (await read_all(log))[:COUNT] == before
    files = [row[0] for row in await owner.fetch("SELECT file FROM emberlog.segments ORDER BY file")]
    assert sorted(path.name for path in folder.iterdir()) == files


async def until_alone(owner: Connection) -> None:
    """Postgres has noticed that the killed process is gone."""
    alone = "SELECT count(*) = 0 FROM pg_stat_activity WHERE datname = current_database() AND application_name = 'emberlog archive'"
    async with asyncio.timeout(30):
        while not await owner.fetchval(alone):
            await asyncio.sleep(0.02)


async def test_a_full_disk_leaves_everything_as_it_was(
    log: PostgresEventLog,
    instance: UUID,
    owner_dsn: str,
    owner: Connection,
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    before = await filled(log, instance, owner_dsn)

    def full(handle: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(segment_module.os, "fsync", full)  # type: ignore[attr-defined]
    with pytest.raises(OSError, match="No space left"):
        await archive_all(owner_dsn, folder)
    monkeypatch.undo()
    assert list(folder.iterdir()) == []
    assert await owner.fetchval("SELECT count(*) FROM emberlog.event_partitions") >= 11
    assert await read_all(log) == before
    assert len(await archive_all(owner_dsn, folder)) == 10


async def test_other_users_of_the_machine_read_no_segment(
    log: PostgresEventLog, instance: UUID, owner_dsn: str, folder: Path
) -> None:
    await filled(log, instance, owner_dsn)
    archiver = await Archiver.open(owner_dsn, with_user(owner_dsn, "emberlog_gateway"), folder)
    [oldest, *_] = await archiver.candidates(datetime.now(UTC))
    await archiver.archive(oldest)
    await archiver.close()
    assert {path.stat().st_mode & 0o007 for path in (folder, *folder.iterdir())} == {0}


async def test_what_the_disk_gives_back_is_what_is_believed(
    log: PostgresEventLog, instance: UUID, owner_dsn: str, owner: Connection, folder: Path
) -> None:
    before = await filled(log, instance, owner_dsn)
    archiver = await Archiver.open(owner_dsn, with_user(owner_dsn, "emberlog_gateway"), folder)

    async def spoil(partition: Partition, step: Step, position: int) -> None:
        if step is Step.NAMED:
            [path] = folder.iterdir()
            whole = bytearray(path.read_bytes())
            whole[-9] ^= 1
            path.write_bytes(whole)

    [oldest, *_] = await archiver.candidates(datetime.now(UTC))
    with pytest.raises(LogDamaged, match="does not hold what was written"):
        await archiver.archive(oldest, spoil)
    await archiver.close()
    assert await owner.fetchval("SELECT count(*) FROM emberlog.segments") == 0
    assert await read_all(log) == before
    assert len(await archive_all(owner_dsn, folder)) == 10


# -- beside others ------------------------------------------------------------------------------------------------------


async def test_appenders_and_readers_go_on_while_partitions_leave(
    log: PostgresEventLog, instance: UUID, owner_dsn: str, folder: Path
) -> None:
    before = await filled(log, instance, owner_dsn)
    done = asyncio.Event()

    async def write() -> int:
        count = 0
        while not done.is_set():
            outcomes = await log.append(instance, [new_event(), new_event(expected_version=-1)])
            count += len(outcomes)
        return count

    async def follow() -> int:
        rounds = 0
        while not done.is_set() or not rounds:
            seen = await read_all(log, 17)
            assert [event.position for event in seen] == list(range(1, len(seen) + 1))
            assert seen[:COUNT] == before
            decisions = [event.position for event in seen if event.version is not None]
            assert [event.position for event in await log.read_decisions(0, 100_000)][: len(decisions)] == decisions
            rounds += 1
        return rounds

    async def archive() -> int:
        try:
            return len(await archive_all(owner_dsn, folder))
        finally:
            done.set()

    written, *_, moved = await asyncio.gather(write(), follow(), follow(), archive())
    assert moved == 10
    assert await log.head() == COUNT + written + 10
    assert written > 0


async def test_a_reader_that_takes_long_makes_it_give_up_with_nothing_changed(
    log: PostgresEventLog,
    instance: UUID,
    owner_dsn: str,
    owner: Connection,
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(archiver_module, "TRIES", 2)
    monkeypatch.setattr(archiver_module, "PAUSE_SECONDS", 0.01)
    before = await filled(log, instance, owner_dsn)
    async with owner.transaction():
        await owner.fetch("SELECT position FROM emberlog.events")
        with pytest.raises(
            ArchiveRefused, match="1 to 10 are being read by a statement that takes long: nothing was changed"
        ):
            await archive_all(owner_dsn, folder)
        assert [outcome.position for outcome in await log.append(instance, [new_event()])] == [COUNT + 1]
    assert (await read_all(log))[:COUNT] == before
    assert await owner.fetchval("SELECT count(*) FROM emberlog.segments") == 0
    assert len(await archive_all(owner_dsn, folder)) == 10


async def test_two_at_once_are_refused(log: PostgresEventLog, owner_dsn: str, folder: Path) -> None:
    one = await Archiver.open(owner_dsn, with_user(owner_dsn, "emberlog_gateway"), folder)
    with pytest.raises(ArchiveRefused, match="another process archives this log"):
        await Archiver.open(owner_dsn, with_user(owner_dsn, "emberlog_gateway"), folder)
    await one.close()
    await (await Archiver.open(owner_dsn, with_user(owner_dsn, "emberlog_gateway"), folder)).close()


# -- what may be archived ------------------------------------------------------------------------------------------------


async def test_segments_are_not_spread_over_two_folders(
    log: PostgresEventLog, instance: UUID, owner_dsn: str, folder: Path, tmp_path: Path
) -> None:
    await fill(log, instance, COUNT)
    await age(owner_dsn, OLD)
    archiver = await Archiver.open(owner_dsn, with_user(owner_dsn, "emberlog_gateway"), folder)
    try:
        for partition in (await archiver.candidates(datetime.now(UTC) - timedelta(days=4)))[:3]:
            await archiver.archive(partition)
    finally:
        await archiver.close()
    other = tmp_path / "other"
    with pytest.raises(
        ArchiveRefused, match=r"events-000000000021-.* is not in .*other, and all of them must lie in one"
    ):
        await archive_all(owner_dsn, other)
    assert not other.exists()
    folder.rename(other)  # with what it holds it is as good a folder as any
    assert len(await archive_all(owner_dsn, other)) == 7


async def test_the_gateways_role_may_not_archive(
    log: PostgresEventLog, instance: UUID, owner_dsn: str, folder: Path
) -> None:
    await filled(log, instance, owner_dsn)
    with pytest.raises(ArchiveRefused, match="only the owner"):
        await Archiver.open(with_user(owner_dsn, "emberlog_gateway"), with_user(owner_dsn, "emberlog_gateway"), folder)
    for statement in (
        "SELECT emberlog.archive_partition(1, 10, 'x', 1, sha256(''), '{1}', '{0}', ARRAY[sha256('')])",
        "INSERT INTO emberlog.segments SELECT * FROM emberlog.segments",
        "INSERT INTO emberlog.archived_decisions SELECT * FROM emberlog.archived_decisions",
        "DROP TABLE emberlog.events_000000000001",
    ):
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            await log.pool.execute(statement)


@pytest.mark.parametrize("table", ["segments", "archived_decisions"])
async def test_what_was_archived_is_recorded_for_good(owner: Connection, table: str) -> None:
    for change in ("UPDATE emberlog.{} SET first_position = 0", "DELETE FROM emberlog.{}", "TRUNCATE emberlog.{}"):
        with pytest.raises(asyncpg.PostgresError, match="append-only") as refused:
            await owner.execute(
                change.format(table).replace(
                    "SET first_position", "SET " + ("first_position" if table == "segments" else "position")
                )
            )
        assert refused.value.sqlstate == "EL002"


async def test_three_days_stay_whatever_is_asked_for(
    log: PostgresEventLog, instance: UUID, owner_dsn: str, folder: Path
) -> None:
    await fill(log, instance, COUNT)
    await age(owner_dsn, OLD, days=2)
    assert await archive_due(owner_dsn, with_user(owner_dsn, "emberlog_gateway"), folder, timedelta(seconds=1)) == {
        "segments": 0,
        "events": 0,
    }
    archiver = await Archiver.open(owner_dsn, with_user(owner_dsn, "emberlog_gateway"), folder)
    with pytest.raises(ArchiveRefused, match="younger than 3 days"):
        await archiver.archive(Partition(1, WIDTH, "events_000000000001", datetime.now(UTC)))
    await archiver.close()
    await age(owner_dsn, OLD, days=2)
    assert await archive_due(owner_dsn, with_user(owner_dsn, "emberlog_gateway"), folder, timedelta(days=3)) == {
        "segments": 10,
        "events": OLD,
    }


@pytest.mark.parametrize(
    ("statement", "reason"),
    [
        (
            (
                "INSERT INTO projections.requests (tenant, request_id, attempt, state, agent, model, requested_position) "
                "VALUES ('acme', 'r', 1, 'open', 'a', 'm', 3)"
            ),
            "a request among them has no outcome yet",
        ),
        (
            "UPDATE projections.cursors SET position = 9 WHERE name = 'requests'",
            "the view requests has not folded them all",
        ),
        (
            "DELETE FROM projections.cursors",
            "the view requests has not folded them all",
        ),
    ],
)
async def test_what_somebody_still_needs_from_the_table_stays_there(
    log: PostgresEventLog, instance: UUID, owner_dsn: str, owner: Connection, folder: Path, statement: str, reason: str
) -> None:
    await filled(log, instance, owner_dsn)
    await owner.execute(statement)
    with pytest.raises(ArchiveRefused, match=f"the events 1 to 10 cannot be archived: {reason}"):
        await archive_all(owner_dsn, folder)
    assert not folder.exists()


async def test_only_the_oldest_partition_may_go(
    log: PostgresEventLog, instance: UUID, owner_dsn: str, folder: Path
) -> None:
    await filled(log, instance, owner_dsn)
    archiver = await Archiver.open(owner_dsn, with_user(owner_dsn, "emberlog_gateway"), folder)
    _, second, *_ = await archiver.candidates(datetime.now(UTC))
    with pytest.raises(ArchiveRefused, match="older ones come first"):
        await archiver.archive(second)
    await archiver.close()


async def test_nobody_changes_an_event_between_its_check_and_its_drop(
    log: PostgresEventLog, instance: UUID, owner_dsn: str, owner: Connection, folder: Path
) -> None:
    await filled(log, instance, owner_dsn)
    await owner.execute(
        "ALTER TABLE emberlog.events_000000000001 DISABLE TRIGGER append_only; SET lock_timeout = '50ms'"
    )
    change = "UPDATE emberlog.events_000000000001 SET tenant = 'acme' WHERE position = 7"
    refused = []

    async def meddle(partition: Partition, step: Step, position: int) -> None:
        if step in (Step.WRITTEN, Step.NAMED, Step.CHECKED):
            with pytest.raises(asyncpg.LockNotAvailableError):
                await owner.execute(change)
            refused.append(step)

    await owner.execute(change)  # the negative control: without the archiver's lock it is possible
    archiver = await Archiver.open(owner_dsn, with_user(owner_dsn, "emberlog_gateway"), folder)
    [oldest, *_] = await archiver.candidates(datetime.now(UTC))
    await archiver.archive(oldest, meddle)
    await archiver.close()
    assert refused == [Step.WRITTEN, Step.NAMED, Step.CHECKED]


async def test_a_view_that_is_behind_folds_on_through_the_archive(
    log: PostgresEventLog, instance: UUID, owner_dsn: str, owner: Connection, folder: Path
) -> None:
    data = encode_data(generated("r"))
    await log.append(instance, [new_event(type="embedding.generated", data=data) for _ in range(COUNT)])
    await age(owner_dsn, OLD)
    assert len(await archive_all(owner_dsn, folder)) == 10
    runner = Runner(with_user(owner_dsn, "emberlog_gateway"), [USAGE], read=log.read)
    await runner.start()
    try:
        await runner.wait_for(USAGE.name, await log.head(), 30)
    finally:
        await runner.stop()
    assert await owner.fetchval("SELECT sum(requests) FROM projections.usage WHERE grain = 86400") == COUNT
