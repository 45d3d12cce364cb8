"""A disk without a free byte: appends and folds wait and say so, nothing is lost or torn, and with space again they go on by themselves."""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from uuid import UUID

import asyncpg
import pytest

from adapters.appender import Appender
from adapters.embedded import EmbeddedServices
from adapters.embedded.service import ServiceEvent
from adapters.postgres.event_log import PostgresEventLog
from adapters.postgres.migrator import migrate
from domain.ports.event_log import Appended, AppendStatus, LogUnavailable
from projections.runner import Runner
from tests.conformance.conftest import new_event
from tests.support.folders import temporary_data_dir
from tests.support.projecting import plain_requests, plain_usage, request_rows, some_history, usage_rows, write_log
from tests.support.small_disk import SmallDisk, small_disk
from tests.support.waiting import until

MEGABYTES = 256


@pytest.fixture
def disk(open_folder: Path) -> Iterator[SmallDisk]:
    with small_disk(open_folder, MEGABYTES) as made, temporary_data_dir(made.folder):
        yield made


@pytest.fixture
def deaths() -> list[ServiceEvent]:
    """What the supervisor of the test's server has told."""
    return []


@pytest.fixture
async def server(disk: SmallDisk, deaths: list[ServiceEvent]) -> AsyncIterator[EmbeddedServices]:
    """A server whose every file, write-ahead log included, lies on the small disk."""
    services = await EmbeddedServices.start(
        disk.folder / "data",
        valkey=False,
        postgres_version=int(os.environ.get("EMBERLOG_TEST_POSTGRES", "18")),
        on_event=deaths.append,
    )
    async with services:
        await migrate(services.owner_dsn)
        await services.grant_app_role()
        yield services


@pytest.fixture
async def log(server: EmbeddedServices) -> AsyncIterator[PostgresEventLog]:
    made = await PostgresEventLog.connect(server.app_dsn)
    yield made
    await made.close()


@pytest.fixture
async def appender(log: PostgresEventLog, instance: UUID) -> AsyncIterator[Appender]:
    made = Appender(log, instance, first_backoff=0.05, max_backoff=0.5)
    yield made
    await made.close(timeout=1)


class Traffic:
    """Events submitted one after another, and what became of them."""

    def __init__(self, appender: Appender) -> None:
        self._appender = appender
        self.sent: list[bytes] = []
        self.outcomes: list[Appended | Exception] = []

    async def send(self, count: int) -> None:
        for n in range(count):
            event = new_event()
            self.sent.append(event.event_id)
            self._appender.submit(event, self.outcomes.append)
            if n % 100 == 0:
                await asyncio.sleep(0)

    async def assert_all_written_once_in_order(self, log: PostgresEventLog, owner_dsn: str) -> None:
        assert [o.position for o in self.outcomes if isinstance(o, Appended)] == list(range(1, len(self.sent) + 1))
        stored: list[bytes] = []
        while page := await log.read(len(stored), 10_000):
            stored += [event.event_id for event in page]
        assert stored == self.sent
        owner = await asyncpg.connect(owner_dsn)
        try:
            assert await owner.fetchval(
                "SELECT bool_and(content_hash = emberlog.content_hash(position, event_id, tenant, stream, version, type, "
                "schema_version, emberlog.micros(recorded_at), data)) FROM emberlog.events"
            )
        finally:
            await owner.close()


async def _use_up_the_write_ahead_log(owner: asyncpg.Connection[asyncpg.Record]) -> None:
    for _ in range(64):  # each time a further segment of 16 MB is needed
        await owner.execute("SELECT pg_logical_emit_message(false, 'filler', 'x'), pg_switch_wal()")


async def test_appends_to_a_full_disk_are_refused_for_now_and_go_on_by_themselves_when_there_is_space(
    disk: SmallDisk,
    server: EmbeddedServices,
    log: PostgresEventLog,
    instance: UUID,
    appender: Appender,
    deaths: list[ServiceEvent],
) -> None:
    health: list[bool] = []
    appender.on_health(health.append)
    traffic = Traffic(appender)
    await traffic.send(500)
    assert await appender.drain(30)

    disk.fill()
    await traffic.send(20_000)
    await until(lambda: not appender.healthy, what="the appender notices", timeout=30)
    written = await log.head()
    assert written < len(traffic.sent)
    # Readers do not mind, and another writer is told what is wrong and that the same may be sent again.
    assert len(await log.read(0, 1000)) == min(written, 1000)
    event = new_event(data=b'{"filler": "%s"}' % (b"x" * 200_000))
    with pytest.raises(LogUnavailable, match=r"DiskFullError: .*No space left on device"):
        await log.append(instance, [event])

    disk.free()
    assert await appender.drain(60)
    assert appender.healthy
    assert health[-1] is True
    await traffic.assert_all_written_once_in_order(log, server.owner_dsn)
    assert (await log.append(instance, [event]))[0].status is AppendStatus.APPENDED
    assert deaths == [], "the server died of it"


async def test_a_server_that_died_for_want_of_space_and_cannot_start_comes_back_with_everything_when_there_is_some(
    disk: SmallDisk,
    server: EmbeddedServices,
    log: PostgresEventLog,
    appender: Appender,
    deaths: list[ServiceEvent],
) -> None:
    traffic = Traffic(appender)
    await traffic.send(500)
    assert await appender.drain(30)

    owner = await asyncpg.connect(server.owner_dsn)
    disk.fill()
    with pytest.raises((asyncpg.PostgresError, asyncpg.InterfaceError, OSError)):
        await _use_up_the_write_ahead_log(owner)
    owner.terminate()
    await traffic.send(500)

    async def cannot_even_start() -> bool:
        disk.fill()  # with what the dead server has given back
        if "restart_failed" in [event.kind for event in deaths]:
            return True
        with contextlib.suppress(asyncpg.PostgresError, asyncpg.InterfaceError, OSError):
            again = await asyncpg.connect(server.owner_dsn, timeout=5)  # it was faster, and has to die once more
            try:
                await _use_up_the_write_ahead_log(again)
            finally:
                again.terminate()
        return False

    await until(cannot_even_start, what="the server dies and cannot be started again", timeout=60)
    assert not appender.healthy
    with pytest.raises(LogUnavailable):
        await log.read(0, 10)

    disk.free()
    assert await appender.drain(120)
    await traffic.assert_all_written_once_in_order(log, server.owner_dsn)
    assert [event.kind for event in deaths][-1] == "restarted"


async def test_views_wait_while_the_disk_is_full_and_are_right_when_they_have_gone_on(
    disk: SmallDisk, server: EmbeddedServices
) -> None:
    history = some_history(3000)
    owner = await asyncpg.connect(server.owner_dsn)
    head = await write_log(owner, history)
    disk.fill()
    runner = Runner(server.app_dsn, poll_seconds=0.05)
    await runner.start()
    try:
        for name in ("usage", "requests"):
            with pytest.raises(TimeoutError):  # not ProjectionHalted: no event is at fault
                await runner.wait_for(name, head, 1)
        disk.free()
        for name in ("usage", "requests"):
            assert (await runner.wait_for(name, head, 60)).position == head
        assert await usage_rows(owner) == plain_usage(history)
        assert await request_rows(owner) == plain_requests(history)
    finally:
        await runner.stop()
        owner.terminate()


def test_a_full_disk_takes_no_further_byte_until_it_is_freed(open_folder: Path) -> None:
    """Negative control: what the tests above call full is full."""
    with small_disk(open_folder, 8) as disk:
        before = disk.folder / "before"
        before.write_bytes(b"was there")
        disk.fill()
        with pytest.raises(OSError, match="No space left"):
            (disk.folder / "more").write_bytes(b"x")
        assert before.read_bytes() == b"was there"
        disk.free()
        (disk.folder / "more").write_bytes(b"x" * 1_000_000)
