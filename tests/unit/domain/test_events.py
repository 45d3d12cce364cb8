"""What the catalogue of events says about each type holds for its fields."""

from __future__ import annotations

import string

import msgspec
import pytest

from domain.events import EVENT_TYPES, SYSTEM_TENANT, EventData
from tests.support.corpus import CorpusEvent, corpus
from tests.support.streams import wrong_places

CORPUS = list(corpus())


@pytest.mark.parametrize("struct", EVENT_TYPES.values(), ids=EVENT_TYPES)
def test_streams_and_protected_fields_are_named_after_fields_that_exist(struct: type[EventData]) -> None:
    fields = {f.encode_name for f in msgspec.structs.fields(struct)}
    assert {*struct.SEALED, *struct.KEYED} <= fields
    for stream in struct.STREAMS:
        assert {name for _, name, _, _ in string.Formatter().parse(stream) if name} <= fields | {"tenant"}


def test_whatever_carries_free_metadata_or_a_fingerprint_is_marked_as_sealed_or_keyed() -> None:
    for struct in EVENT_TYPES.values():
        fields = {f.encode_name for f in msgspec.structs.fields(struct)}
        assert ("metadata" in fields) == ("metadata" in struct.SEALED)
        assert ("fingerprint" in fields) == ("fingerprint" in struct.KEYED)


def test_the_events_of_the_corpus_stand_in_the_streams_of_their_types() -> None:
    assert [p for e in CORPUS for p in wrong_places(e.type, e.tenant, e.stream, e.data)] == []


@pytest.mark.parametrize(
    ("stream", "tenant"), [("request/other/r1", "acme"), ("request/acme/r2", "acme"), ("system", SYSTEM_TENANT)]
)
def test_an_event_in_another_stream_is_found(stream: str, tenant: str) -> None:
    event: CorpusEvent = next(e for e in CORPUS if e.type == "embedding.requested")
    assert len(wrong_places(event.type, tenant, stream, event.data)) == 1


def test_a_tenants_key_in_the_installations_stream_is_found() -> None:
    event = next(e for e in CORPUS if e.type == "key.created" and e.tenant != SYSTEM_TENANT)
    assert len(wrong_places(event.type, event.tenant, "system", event.data)) == 1
