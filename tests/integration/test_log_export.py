"""A log as a file, and a log made of it: equal in everything but its incarnation, or not made at all."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import io
import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest

from adapters.archive.export import export_log
from adapters.archive.import_lines import ImportRefused
from adapters.archive.lines import decode_line, encode_line
from adapters.archive.load import Imported, import_log
from adapters.postgres.event_log import PostgresEventLog
from adapters.postgres.instances import open_of_fenced
from adapters.postgres.pool import connect
from domain.content_hash import content_hash
from domain.cursor import decode_cursor, encode_cursor
from domain.errors import GatewayError
from domain.events import EmbeddingRequested
from domain.fingerprint import printable
from domain.keys import OUTCOME, REQUESTED
from domain.ports.event_log import AppendStatus, NewEvent
from gateway.service.outcomes import request_event
from tests.integration.conftest import MakeDatabase
from tests.support.archiving import WIDTH, age, archive_all, fill, read_all
from tests.support.cli import Cli
from tests.support.databases import execute, with_user
from tests.support.projecting import generated

OLD = 4 * WIDTH
FINGERPRINT = bytes(range(16))


@pytest.fixture
async def source(narrow_database: MakeDatabase) -> str:
    return await narrow_database()


@pytest.fixture
async def target(narrow_database: MakeDatabase) -> str:
    return await narrow_database()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "archive"


async def open_log(dsn: str, folder: Path | None = None) -> PostgresEventLog:
    return await PostgresEventLog.connect(with_user(dsn, "emberlog_gateway"), archive_dir=folder)


async def instance_of(log: PostgresEventLog) -> UUID:
    return await log.register_instance("integration tests", 600)


def requested_event(request_id: str, fingerprint: bytes, instance: UUID, at: int = 5) -> NewEvent:
    data = EmbeddingRequested(
        request_id=request_id, agent="a", attempt=1, at=at, instance=str(instance), fingerprint=printable(fingerprint), model="m",
        space="s", inputs=2, reserved_tokens=9,
    )  # fmt: skip
    return request_event("acme", request_id, 1, at, REQUESTED, data, fingerprint)


def generated_event(request_id: str, at: int = 5) -> NewEvent:
    return request_event("acme", request_id, 1, at, OUTCOME, generated(request_id))


async def make_source(dsn: str, folder: Path) -> UUID:
    """A log with an archived half, decisions, and requests of which one is open."""
    log = await open_log(dsn, folder)
    instance = await instance_of(log)
    await fill(log, instance, OLD + 5)
    await age(dsn, OLD)
    await archive_all(dsn, folder)
    await log.append(
        instance,
        [
            requested_event("one", FINGERPRINT, instance),
            generated_event("one"),
            requested_event("open", FINGERPRINT, instance),
        ],
    )
    await log.close()
    return instance


async def exported(dsn: str, folder: Path | None = None, **options: Any) -> bytes:
    log = await open_log(dsn, folder)
    try:
        out = io.BytesIO()
        first, last = options.pop("first", 1), options.pop("last", None)
        await export_log(log, out, first, await log.head() if last is None else last, **options)
        return out.getvalue()
    finally:
        await log.close()


async def import_(dsn: str, data: bytes) -> Imported:
    return await import_log(dsn, io.BytesIO(data))


async def is_empty(dsn: str) -> bool:
    connection = await connect(dsn, "look", role=False)
    try:
        tables = ("events", "dedupe_keys", "decision_streams", "tenant_keys", "instances")
        counts = [await connection.fetchval(f"SELECT count(*) FROM emberlog.{table}") for table in tables]
        return not any(counts)
    finally:
        await connection.close()


async def test_export_import_export_gives_the_same_file_but_for_its_header(
    source: str, target: str, folder: Path
) -> None:
    await make_source(source, folder)
    first = await exported(source, folder)
    done = await import_(target, first)
    second = await exported(target)
    assert first.splitlines()[1:] == second.splitlines()[1:]
    one, two = json.loads(first.splitlines()[0]), json.loads(second.splitlines()[0])
    assert one.pop("incarnation") != two.pop("incarnation")
    assert one == two
    assert done.events == one["last"] == OLD + 5 + 4 + 3


async def test_an_imported_log_is_read_and_appended_to_as_the_source_was(
    source: str, target: str, folder: Path
) -> None:
    await make_source(source, folder)
    await import_(target, await exported(source, folder))
    one, two = await open_log(source, folder), await open_log(target)
    assert await read_all(one) == await read_all(two)
    assert await one.read_decisions(0, 1000) == await two.read_decisions(0, 1000)
    head = await two.head()
    [appended] = await two.append(await instance_of(two), [generated_event("new")])
    assert (appended.status, appended.position) == (AppendStatus.APPENDED, head + 1)
    await one.close()
    await two.close()


async def test_cursors_of_the_source_are_refused_by_the_imported_log(source: str, target: str, folder: Path) -> None:
    await make_source(source, folder)
    await import_(target, await exported(source, folder))
    one, two = await open_log(source, folder), await open_log(target)
    before, after = await one.identity(), await two.identity()
    assert before.installation == after.installation
    with pytest.raises(GatewayError, match="another log"):
        decode_cursor(encode_cursor(before.incarnation, 3), after.incarnation, await two.head())
    await one.close()
    await two.close()


async def test_an_imported_log_knows_the_requests_of_the_last_two_days(source: str, target: str, folder: Path) -> None:
    instance = await make_source(source, folder)
    await import_(target, await exported(source, folder))
    log = await open_log(target)
    mine = await instance_of(log)
    again = [
        requested_event("one", FINGERPRINT, instance),
        requested_event("one", bytes(16), instance),
        generated_event("one"),
        requested_event("two", FINGERPRINT, instance),
    ]
    statuses = [outcome.status for outcome in await log.append(mine, again)]
    assert statuses == [
        AppendStatus.DUPLICATE,
        AppendStatus.MISMATCH,
        AppendStatus.DUPLICATE,
        AppendStatus.APPENDED,
    ]
    await log.close()


async def test_streams_go_on_where_the_source_left_them(source: str, target: str, folder: Path) -> None:
    await make_source(source, folder)
    await import_(target, await exported(source, folder))
    log = await open_log(target)
    versions = {e.stream: e.version for e in await log.read_decisions(0, 1000)}
    stream, version = max(versions.items())
    assert version is not None
    event = generated_event("x")
    decision = NewEvent(event.key, event.event_id, "acme", stream, "agent.registered", b"{}", expected_version=version)
    [appended] = await log.append(await instance_of(log), [decision])
    assert (appended.status, appended.version) == (AppendStatus.APPENDED, version + 1)
    await log.close()


async def test_the_open_attempts_of_the_source_are_given_up_by_the_reconciler(
    source: str, target: str, folder: Path
) -> None:
    await make_source(source, folder)
    await import_(target, await exported(source, folder))
    await execute(
        target,
        "INSERT INTO projections.requests (tenant, request_id, attempt, state, agent, model, instance, requested_position, requested_at) "
        "SELECT tenant, data->>'request_id', 1, 'open', 'a', 'm', data->>'instance', position, recorded_at FROM emberlog.events "
        "WHERE type = 'embedding.requested' AND data->>'request_id' = 'open'",
    )
    log = await open_log(target)
    assert len(await open_of_fenced(log.pool, 10)) == 1
    await log.close()


# -- refused ------------------------------------------------------------------------------------------------------------


def resealed(lines: list[bytes]) -> bytes:
    """The file of these lines with a trailer that fits them."""
    body = b"".join(lines[1:-1])
    trailer = json.dumps({"events": json.loads(lines[-1])["events"], "sha256": hashlib.sha256(body).hexdigest()})
    return lines[0] + body + trailer.encode() + b"\n"


def change(line: bytes, **changes: Any) -> bytes:
    """The line of an event that says something else, its content hash made to fit if `hash` says so."""
    import msgspec

    fit = changes.pop("fit", False)
    event = msgspec.structs.replace(decode_line(line), **changes)
    if fit:
        event = msgspec.structs.replace(event, content_hash=content_hash(event))
    return encode_line(event)


TAMPERED: dict[str, tuple[Callable[[list[bytes]], object], str]] = {
    "another tenant": (
        lambda f: f.__setitem__(20, change(f[20], tenant="evil")),
        "line 21: .*position 20 is not as it was",
    ),
    "other data": (
        lambda f: f.__setitem__(20, change(f[20], data=b'{"n": 7}')),
        "line 21: .*position 20 is not as it was",
    ),
    "data that Postgres writes otherwise": (
        lambda f: f.__setitem__(20, change(f[20], data=b'{"n":7}', fit=True)),
        "line 21: .*position 20 .*otherwise",
    ),
    "data that is no JSON": (
        lambda f: f.__setitem__(20, change(f[20], data=b'{"n": }', fit=True)),
        "line 21: Postgres does not take",
    ),
    "data that is no object": (
        lambda f: f.__setitem__(20, change(f[20], data=b"[]", fit=True)),
        "line 21: Postgres does not take",
    ),
    "a time that goes back": (
        lambda f: f.__setitem__(20, change(f[20], recorded_at=5, fit=True)),
        "line 21: its time",
    ),
    "a time to come": (
        lambda f: f.__setitem__(20, change(f[20], recorded_at=1 << 53, fit=True)),
        "line 21: its time",
    ),
    "a line left out": (lambda f: f.__delitem__(20), "line 21: it has position 21, expected 20"),
    "a line twice": (lambda f: f.insert(20, f[20]), "line 22: it has position 20, expected 21"),
    "a line of something else": (lambda f: f.__setitem__(20, b"{}\n"), "line 21: it is neither"),
    "the last events left out": (lambda f: f.__delitem__(slice(-3, -1)), "the trailer does not fit"),
    "the trailer left out": (lambda f: f.pop(), "cut off here: its trailer is missing"),
    "something behind the trailer": (lambda f: f.append(b"x\n"), "something follows the trailer"),
    "a stream's versions out of order": (
        lambda f: f.__setitem__(1, change(f[1], version=9, fit=True)),
        "versions of the stream",
    ),
    "a header of another format": (
        lambda f: f.__setitem__(0, f[0].replace(b'export":1', b'export":2')),
        "line 1: the export has format 2",
    ),
    "no header": (lambda f: f.__delitem__(0), "line 1: it is not the header"),
}


@pytest.mark.parametrize("what", TAMPERED)
async def test_a_tampered_export_is_refused_at_its_first_wrong_line_with_nothing_imported(
    source: str, target: str, folder: Path, what: str
) -> None:
    tamper, expected = TAMPERED[what]
    log = await open_log(source)
    await fill(log, await instance_of(log), 3 * WIDTH)
    await log.close()
    lines = (await exported(source)).splitlines(keepends=True)
    tamper(lines)
    fits = what not in ("the last events left out", "the trailer left out", "something behind the trailer", "no header")
    with pytest.raises(ImportRefused, match=expected):
        await import_(target, resealed(lines) if fits else b"".join(lines))
    assert await is_empty(target)


async def test_an_untampered_export_put_together_the_same_way_is_taken(source: str, target: str) -> None:
    # The negative control: what the tests above see is the tampering.
    log = await open_log(source)
    await fill(log, await instance_of(log), 3 * WIDTH)
    await log.close()
    lines = (await exported(source)).splitlines(keepends=True)
    lines[20] = change(lines[20], fit=True)
    assert (await import_(target, resealed(lines))).events == 3 * WIDTH


async def test_a_log_with_events_takes_no_import(source: str, target: str, folder: Path) -> None:
    await make_source(source, folder)
    data = await exported(source, folder)
    with pytest.raises(ImportRefused, match=r"this log has \d+ events"):
        await import_(source, data)
    await import_(target, data)
    with pytest.raises(ImportRefused, match=r"this log has \d+ events"):
        await import_(target, data)


async def test_an_empty_log_with_a_live_gateway_takes_no_import(source: str, target: str, folder: Path) -> None:
    await make_source(source, folder)
    log = await open_log(target)
    instance = await instance_of(log)
    with pytest.raises(ImportRefused, match="a gateway runs"):
        await import_(target, await exported(source, folder))
    await log.fence_instance(instance)
    await log.close()
    assert (await import_(target, await exported(source, folder))).events


async def test_the_gateways_role_may_not_import(source: str, target: str, folder: Path) -> None:
    await make_source(source, folder)
    with pytest.raises(ImportRefused, match="only the owner"):
        await import_(with_user(target, "emberlog_gateway"), await exported(source, folder))


async def test_a_part_of_a_log_is_exported_and_makes_no_log(source: str, target: str, folder: Path) -> None:
    await make_source(source, folder)
    part = await exported(source, folder, first=OLD - 3, last=OLD + 3)
    assert [decode_line(line).position for line in part.splitlines()[1:-1]] == list(range(OLD - 3, OLD + 4))
    with pytest.raises(ImportRefused, match="begins at position 37"):
        await import_(target, part)


# -- keys and commands --------------------------------------------------------------------------------------------------


async def test_tenants_keys_travel_wrapped_and_only_where_asked_for(source: str, target: str, folder: Path) -> None:
    await make_source(source, folder)
    wrapped = bytes(range(60))
    await execute(source, f"INSERT INTO emberlog.tenant_keys (tenant, wrapped) VALUES ('acme', '\\x{wrapped.hex()}')")
    without, with_keys = await exported(source, folder), await exported(source, folder, with_keys=True)
    assert base64.b64encode(wrapped) in with_keys
    assert base64.b64encode(wrapped) not in without
    assert (await import_(target, with_keys)).keys == 1
    assert await exported(target, with_keys=True) != with_keys  # its incarnation is another
    assert (await exported(target, with_keys=True)).splitlines()[1:] == with_keys.splitlines()[1:]


async def test_two_keys_of_a_tenant_or_one_of_no_time_are_refused(source: str, target: str, folder: Path) -> None:
    await make_source(source, folder)
    await execute(source, "INSERT INTO emberlog.tenant_keys (tenant, wrapped) VALUES ('acme', 'x')")
    lines = (await exported(source, folder, with_keys=True)).splitlines(keepends=True)
    for wrong in (lines[1] * 2, lines[1].replace(b'"created_at":', b'"created_at":1000000000')):
        with pytest.raises(ImportRefused, match="the key of tenant 'acme' cannot be stored"):
            await import_(target, resealed([lines[0], wrong, *lines[2:]]))
        assert await is_empty(target)


async def test_lines_of_a_shredded_tenant_say_so_and_their_hashes_stay_true(
    source: str, target: str, folder: Path
) -> None:
    await make_source(source, folder)
    await execute(source, "INSERT INTO emberlog.tenant_keys (tenant, shredded_at) VALUES ('acme', now())")
    data = await exported(source, folder)
    key, *events = [json.loads(line) for line in data.splitlines()[1:-1]]
    assert key["tenant_key"] == "acme"
    assert key["wrapped"] is None
    assert {event["tenant"]: event.get("shredded", False) for event in events} == {"acme": True, "_system": False}
    await import_(target, data)
    assert (await exported(target)).splitlines()[1:] == data.splitlines()[1:]


async def test_the_commands_export_and_import_through_files_and_pipes(
    source: str, target: str, folder: Path, tmp_path: Path
) -> None:
    await make_source(source, folder)
    archive = {"EMBERLOG_ARCHIVE_DIR": str(folder)}
    one, two = Cli(settings(source) | archive), Cli(settings(target))
    file = tmp_path / "log.ndjson"
    done = await one.json("log", "export", str(file))
    assert done["events"] == OLD + 12
    piped = await one.run("log", "export", "-")
    assert piped.code == 0
    assert piped.out.encode() == file.read_bytes()
    process = await asyncio.create_subprocess_shell(
        f"{sys.executable} -m gateway.cli log import - < {file}", env=two.environment, stdout=asyncio.subprocess.PIPE
    )
    out, _ = await process.communicate()
    assert (process.returncode, out.decode().split()[:2]) == (0, [str(OLD + 12), "events"])
    refused = await two.run("log", "import", str(file))
    assert (refused.code, refused.out) == (1, "")
    assert "an export goes into an empty log" in refused.error
    for words, message in (
        (("export", str(tmp_path / "none" / "x")), "cannot be written: No such file"),
        (("import", str(tmp_path / "none")), "cannot be read: No such file"),
        (("export", "-", "--from", "60"), "the log's positions are 1 to 52"),
    ):
        outcome = await one.run("log", *words)
        assert outcome.code in (1, 2)
        assert message in outcome.error
    assert list(tmp_path.glob("*.part")) == []


async def test_a_pipe_a_device_and_a_link_are_written_to_and_never_replaced(
    source: str, folder: Path, tmp_path: Path
) -> None:
    await make_source(source, folder)
    cli = Cli(settings(source) | {"EMBERLOG_ARCHIVE_DIR": str(folder)})
    file, link, pipe, device = (tmp_path / name for name in ("log.ndjson", "link", "pipe", "full"))
    link.symlink_to(file)
    assert (await cli.json("log", "export", str(link)))["events"] == OLD + 12
    assert link.is_symlink()
    os.mkfifo(pipe)
    reading = asyncio.create_task(asyncio.to_thread(pipe.read_bytes))
    assert (await cli.json("log", "export", str(pipe)))["events"] == OLD + 12
    assert pipe.is_fifo()
    assert await reading == file.read_bytes()
    device.symlink_to("/dev/full")
    refused = await cli.run("log", "export", str(device))
    assert (refused.code, "cannot be written: No space left on device" in refused.error) == (1, True)
    assert Path("/dev/full").is_char_device()
    assert sorted(path.name for path in tmp_path.glob("*.part")) == []


async def test_two_exports_to_one_file_at_once_leave_one_whole_export(
    source: str, folder: Path, tmp_path: Path
) -> None:
    await make_source(source, folder)
    cli = Cli(settings(source) | {"EMBERLOG_ARCHIVE_DIR": str(folder)})
    file = tmp_path / "log.ndjson"
    both = await asyncio.gather(*(cli.run("log", "export", str(file)) for _ in range(2)))
    assert [outcome.code for outcome in both] == [0, 0]
    assert file.read_bytes() == await exported(source, folder)
    assert list(tmp_path.glob("*.part")) == []


def settings(owner_dsn: str) -> dict[str, str]:
    return {
        "EMBERLOG_DATABASE_URL": with_user(owner_dsn, "emberlog_gateway"),
        "EMBERLOG_DATABASE_OWNER_URL": owner_dsn,
    }


async def test_an_import_into_a_new_data_folder_has_the_usage_of_the_source(
    source: str, folder: Path, used_data_dir: Path, tmp_path: Path
) -> None:
    await make_source(source, folder)
    file = tmp_path / "log.ndjson"
    one, two = (
        Cli(settings(source) | {"EMBERLOG_ARCHIVE_DIR": str(folder)}),
        Cli({"EMBERLOG_DATA_DIR": str(used_data_dir)}),
    )
    await one.json("log", "export", str(file))
    assert (await two.json("log", "import", str(file)))["events"] == OLD + 12
    assert (await two.json("log", "head"))["position"] == OLD + 12
    rows = (await two.json("usage"))["usage"]
    assert [(row["tenant"], row["requests"], row["nano_usd"]) for row in rows] == [("acme", 1, 100)]
    assert (await two.json("log", "verify"))["intact"] is True
