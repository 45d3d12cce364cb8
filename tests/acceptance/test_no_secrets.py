"""No text, vector, key or token is in any event, nor in any other table, whatever a gateway has been through."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from typing import Any

import msgspec
import pytest_asyncio

from domain.events import EVENT_TYPES
from domain.fingerprint import body_fingerprint, printable
from gateway.secrets import open_metadata
from gateway.service.admission import body_options
from gateway.wire.messages import EmbeddingGenerate
from tests.acceptance.marked import AGENT, Day, Written, spend
from tests.acceptance.provider import DIMENSIONS, MODEL, Simulator
from tests.acceptance.site import Site, endpoints_toml
from tests.support.dictionary import attack, keys_in, unprinted
from tests.support.folders import temporary_data_dir, temporary_folder
from tests.support.leaks import leaks
from tests.support.streams import wrong_places

WRITTEN_HERE = {
    "embedding.requested", "embedding.generated", "embedding.failed", "embedding.abandoned", "embedding.reembedded",
    "tenant.created", "key.created", "key.revoked", "agent.registered",
}  # fmt: skip


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def day(simulator: Simulator) -> AsyncIterator[Day]:
    """What is left of the day that `tests.acceptance.marked` describes."""
    simulator.behave()
    with temporary_folder() as parent, temporary_data_dir(parent):
        yield await spend(Site(parent, endpoints_toml(simulator)), simulator)


def _data(day: Day, event_type: str) -> list[dict[str, Any]]:
    return [msgspec.json.decode(e.data) for e in day.events if e.type == event_type]


def test_the_day_saw_every_kind_of_event_that_requests_and_keys_can_cause(day: Day) -> None:
    assert {e.type for e in day.events} >= WRITTEN_HERE
    codes = {data["code"] for data in _data(day, "embedding.failed")}
    assert codes >= {"provider_error", "provider_unavailable", "input_too_long", "cancelled", "deadline_exceeded"}


def test_nothing_secret_is_in_any_event_or_table(day: Day) -> None:
    assert leaks(day.content, day.needles()) == []
    events = {f"event {n}, {e.type}": f"{e.stream} {e.data}" for n, e in enumerate(day.events, 1)}
    assert leaks(events, day.needles()) == []


def test_the_search_reads_the_tables_and_finds_what_was_planted(day: Day) -> None:
    read = {table for table, text in day.content.items() if AGENT in text}
    assert any(table.startswith("emberlog.events") for table in read), read
    assert "projections.planted" not in day.content
    found = leaks(day.planted, day.needles())
    # The simulator's vectors have parts in common: others than the one that was planted may be named beside it.
    assert {leak.partition(" is in ")[2].partition(" ")[0] for leak in found} == {"projections.planted"}
    assert set(found) >= {
        "default is in projections.planted (hexadecimal)",
        "first is in projections.planted (text)",
        "vector of second is in projections.planted (decimal)",
    }


def test_every_event_stands_in_a_stream_of_its_type_and_has_a_version_where_it_is_a_decision(day: Day) -> None:
    assert [p for e in day.events for p in wrong_places(e.type, e.tenant, e.stream, e.data.encode())] == []
    for event in day.events:
        struct = EVENT_TYPES[event.type]
        assert (event.version is not None) == struct.DECISION, event
        assert event.schema_version == struct.SCHEMA, event


def test_the_metadata_is_there_for_whoever_has_the_tenants_key(day: Day) -> None:
    key = day.tenant_keys["default"]
    opened = [
        next(iter(msgspec.json.decode(open_metadata(key, data["metadata"])).values()))
        for kind in ("embedding.generated", "embedding.failed", "agent.registered")
        for data in _data(day, kind)
        if "metadata" in data
    ]
    expected = [
        "metadata",
        "agent's metadata",
        "refused's metadata",
        "cancelled metadata",
        "orphan's metadata",
        "http user",
    ]
    assert {day.word(name) for name in expected} <= set(opened)


# -- the dictionary attack ---------------------------------------------------------------------------------------------


def _fingerprints(events: list[Written], content: dict[str, str]) -> set[bytes]:
    """Whatever 16 bytes the database holds: the fingerprints of the events, and those beside the dedupe keys."""
    shown = {unprinted(msgspec.json.decode(e.data)["fingerprint"]) for e in events if e.type == "embedding.requested"}
    held = {bytes.fromhex(v) for text in content.values() for v in re.findall(r"\\x([0-9a-f]{32})\b", text)}
    return shown | held


def _options(day: Day) -> list[bytes]:
    """The options of the requests that the attacker means to find: all but free metadata are in the log, or guessed."""
    named: list[dict[str, Any]] = [{}, {"metadata": {"m": day.word("orphan's metadata")}}]
    return [
        body_options(EmbeddingGenerate(id="x", input="x", model=MODEL, dimensions=DIMENSIONS, **more)) for more in named
    ]


def test_a_dictionary_attack_on_the_logs_fingerprints_finds_nothing_without_a_tenants_key(day: Day) -> None:
    texts = [day.text(name) for name in ("uncached", "late", "orphan", "first")]
    spaces = sorted({data["space"] for data in _data(day, "embedding.requested")})
    fingerprints = _fingerprints(day.events, day.content)
    keys = keys_in(day.content, ["default", "second", "_system", "emberlog"])
    assert len(fingerprints) >= 15
    assert len(keys) > 500
    assert {b"default", b"", bytes(32)} <= keys

    assert attack(fingerprints, texts, _options(day), spaces, keys) == set()
    with_the_key = attack(fingerprints, texts, _options(day), spaces, {day.tenant_keys["default"]})
    assert with_the_key == {day.text("uncached"), day.text("late"), day.text("orphan")}
    of_the_second = attack(fingerprints, texts, _options(day), spaces, {day.tenant_keys["second"]})
    assert of_the_second == {day.text("first")}


def test_the_same_body_of_two_tenants_has_two_fingerprints(day: Day) -> None:
    options = _options(day)[0]
    one, other = (
        printable(body_fingerprint(day.tenant_keys[t], options, [day.text("first")])) for t in ("default", "second")
    )
    assert one != other
    assert other in {data["fingerprint"] for data in _data(day, "embedding.requested")}
