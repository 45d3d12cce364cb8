"""Reading the log through filters: each page a bounded stretch, nothing skipped that has left the table meanwhile."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from adapters.embedded import EmbeddedServices
from adapters.postgres.event_log import READER_SETTINGS, PostgresEventLog
from adapters.postgres.event_scan import EventFilter, EventScan
from adapters.postgres.pool import connect
from adapters.postgres.statements import statement
from domain.ports.event_log import LogDamaged, StoredEvent
from tests.support.archiving import WIDTH, age, archive_all, fill, migrate_narrow, read_all
from tests.support.databases import with_user

OLD = 4 * WIDTH
COUNT = OLD + 5
DECISIONS = EventFilter(streams=frozenset({"tenant/0", "tenant/1"}), tenants=frozenset({"acme"}))


@pytest.fixture
async def owner_dsn(postgres_dsn: str, services: EmbeddedServices) -> str:
    await migrate_narrow(postgres_dsn)
    await services.grant_app_role()
    return postgres_dsn


@pytest.fixture
def app_dsn(owner_dsn: str) -> str:
    return with_user(owner_dsn, "emberlog_gateway")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "archive"


@pytest.fixture
async def log(app_dsn: str, folder: Path) -> AsyncIterator[PostgresEventLog]:
    made = await PostgresEventLog.connect(app_dsn, archive_dir=folder)
    await fill(made, await made.register_instance("test", 600), COUNT)
    yield made
    await made.close()


@pytest.fixture
async def scan(log: PostgresEventLog, app_dsn: str) -> AsyncIterator[EventScan]:
    made = await EventScan.open(log, app_dsn)
    yield made
    await made.close()


async def walk(scan: EventScan, wanted: EventFilter, limit: int, stretch: int) -> list[StoredEvent]:
    """Every event that passes, page by page; each page must get further, and no further than it may."""
    _, head = await scan.place()
    found: list[StoredEvent] = []
    at = 0
    while at < head:
        page = await scan.page(at, head, limit, wanted, stretch)
        assert at < page.reached <= min(head, at + stretch)
        assert len(page.events) <= limit
        found += page.events
        at = page.reached
    return found


@pytest.mark.parametrize("archived", [False, True])
@pytest.mark.parametrize(("limit", "stretch"), [(1, 1000), (3, 7), (1000, 1), (1000, 1000)])
async def test_all_that_passes_is_found_whatever_the_pages_and_wherever_it_lies(
    log: PostgresEventLog, scan: EventScan, owner_dsn: str, folder: Path, archived: bool, limit: int, stretch: int
) -> None:
    await age(owner_dsn, OLD)
    expected = [event for event in await read_all(log) if DECISIONS.passes(event)]
    assert 0 < len(expected) < COUNT
    if archived:
        assert len(await archive_all(owner_dsn, folder)) == 4
    assert await walk(scan, DECISIONS, limit, stretch) == expected


async def test_events_archived_between_two_pages_are_not_skipped(
    log: PostgresEventLog, scan: EventScan, owner_dsn: str, folder: Path
) -> None:
    await age(owner_dsn, OLD)
    expected = [event for event in await read_all(log) if DECISIONS.passes(event)]
    first = await scan.page(0, COUNT, 1, DECISIONS)
    await archive_all(owner_dsn, folder)
    rest = await scan.page(first.reached, COUNT, 1000, DECISIONS)
    while rest.reached < COUNT:
        more = await scan.page(rest.reached, COUNT, 1000, DECISIONS)
        rest = type(rest)(rest.events + more.events, more.reached)
    assert first.events + rest.events == expected


async def test_events_archived_while_the_table_is_read_are_not_skipped(
    log: PostgresEventLog, scan: EventScan, owner_dsn: str, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    await age(owner_dsn, OLD)
    expected = [event for event in await read_all(log) if DECISIONS.passes(event)]
    fetch = scan._fetch

    async def archiving(sql: str, *arguments: object) -> Any:
        if "LIMIT" in sql:
            await archive_all(owner_dsn, folder)
        return await fetch(sql, *arguments)

    monkeypatch.setattr(scan, "_fetch", archiving)
    page = await scan.page(0, COUNT, 1000, DECISIONS)
    assert page.events == expected[: len(page.events)]
    assert page.events


async def test_events_that_are_nowhere_are_told_of_not_skipped(
    log: PostgresEventLog, scan: EventScan, owner_dsn: str, folder: Path
) -> None:
    """Negative control of the ones above: the segments are gone, so the events are."""
    await age(owner_dsn, OLD)
    for segment in await archive_all(owner_dsn, folder):
        (folder / segment.file).unlink()
    with pytest.raises(LogDamaged):
        await scan.page(0, COUNT, 1000, DECISIONS)
    assert (await scan.page(OLD, COUNT, 1000, EventFilter())).reached == COUNT


async def test_a_scan_looks_at_a_range_of_the_index_only(scan: EventScan, app_dsn: str) -> None:
    connection = await connect(app_dsn, "test", settings=READER_SETTINGS)
    try:
        await connection.execute(
            f"PREPARE scan (bigint, bigint, text[], text[], text[], bigint) AS {statement('scan')}"
        )
        for _ in range(7):  # beyond the fifth Postgres may go on with a plan for whatever arguments
            plan = await connection.fetch("EXPLAIN EXECUTE scan (10, 20, '{acme}', NULL, NULL, 100)")
        text = "\n".join(row[0] for row in plan)
        assert "Index Scan" in text
        assert "Seq Scan" not in text
        assert "Sort" not in text
    finally:
        await connection.close()
