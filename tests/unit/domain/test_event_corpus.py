"""Events of past releases are read as the facts that were written.

When a test here fails, the change to an event type cannot read the logs that are out there. How to change one:
- A new optional field needs no new schema version. Add a line that sets it to the corpus of the coming release.
- Anything else (a field removed, renamed, retyped, required, or with another default) does: raise `SCHEMA`, write the step from the
  version before in `domain/upcasters.py`, add two lines of the new version (every field set; only the required ones) to
  `tests/corpus/events-<the coming release>.ndjson`, and what they are read as beside it. What the older lines are read as now, by way of
  the step, is rewritten in their `.read.ndjson`, with the same care as the step.
- The events of a release that is out are never edited: they are in people's logs. The digests below hold them.
"""

from __future__ import annotations

from collections.abc import Iterator
from hashlib import sha256
from typing import Any, ClassVar

import msgspec
import pytest

from domain.decoding import decode_data
from domain.events import EVENT_TYPES, EmbeddingAbandoned, EventData
from domain.upcasters import STEPS
from tests.support.corpus import CorpusEvent, corpus, readings, releases, written_out

DO_INSTEAD = (
    "bump SCHEMA and write an upcaster (domain/upcasters.py); do not edit the corpus. See the head of this file"
)

FROZEN = {
    "events-0.1.ndjson": "2d3cf4a00a94dc40d25eeb247614a2361f06e4920c8ff69e7b2556e742fd5f55",
    "events-0.2.ndjson": "4d9c69a0bed0c03563c64a5155aaf63a4f7cdb67aa78853fc15d63dbb2c873b6",
}
"""SHA-256 of the events of each release. Only those of the release that is not yet out may still change."""

CORPUS = list(zip(corpus(), readings(), strict=True))


def differences(now: Any, then: Any, place: str = "") -> list[str]:
    """Where what an event is read as `now` is not what it was read as `then`. A field that came in since must be at its default."""
    if isinstance(now, msgspec.Struct) and isinstance(then, dict):
        found = [f"{place}.{name} is gone" for name in then if name not in now.__struct_encode_fields__]
        for field in msgspec.structs.fields(now):
            value, here = getattr(now, field.name), f"{place}.{field.encode_name}"
            if field.encode_name in then:
                found += differences(value, then[field.encode_name], here)
            elif value != field.default and (
                field.default_factory is msgspec.NODEFAULT or value != field.default_factory()
            ):
                found.append(f"{here} came in, and is not at its default")
        return found
    if isinstance(now, list | tuple) and isinstance(then, list) and len(now) == len(then):
        return [d for i, (a, b) in enumerate(zip(now, then, strict=True)) for d in differences(a, b, f"{place}[{i}]")]
    return [] if (type(now), now) == (type(then), then) else [f"{place} was {then!r}, is {now!r}"]


@pytest.mark.parametrize(("event", "then"), CORPUS, ids=[f"{n}-{e.type}" for n, (e, _) in enumerate(CORPUS, 1)])
def test_every_event_of_every_release_is_read_as_the_fact_it_was(event: CorpusEvent, then: dict[str, Any]) -> None:
    try:
        now = decode_data(event.type, event.data, event.schema_version)
    except (msgspec.ValidationError, KeyError) as error:
        pytest.fail(f"{event.type}, schema version {event.schema_version}: {error}: {DO_INSTEAD}")
    found = differences(now, then)
    assert not found, f"{event.type}, schema version {event.schema_version}: {', '.join(found)}: {DO_INSTEAD}"


def test_the_events_of_the_corpus_are_those_that_were_written() -> None:
    digests = {path.name: sha256(path.read_bytes()).hexdigest() for path in releases()}
    assert digests == FROZEN, DO_INSTEAD


def test_what_an_event_is_read_as_stands_there_with_every_field() -> None:
    """Else a default could change unseen."""
    for event, then in CORPUS:
        if event.schema_version == EVENT_TYPES[event.type].SCHEMA:
            required = {f.encode_name for f in msgspec.structs.fields(EVENT_TYPES[event.type]) if f.required}
            assert required <= set(then)
            assert set(msgspec.json.decode(event.data)) <= set(then)


def _events_of(name: str, version: int) -> list[dict[str, Any]]:
    return [msgspec.json.decode(e.data) for e, _ in CORPUS if (e.type, e.schema_version) == (name, version)]


def _structs(name: str, data: list[dict[str, Any]]) -> Iterator[tuple[type[msgspec.Struct], list[dict[str, Any]]]]:
    """The type's own struct and those inside it, with the JSON objects that the events have of each."""
    struct = EVENT_TYPES[name]
    yield struct, data
    for field in msgspec.structs.fields(struct):
        kind = msgspec.inspect.type_info(field.type)
        inner = kind.item_type if isinstance(kind, msgspec.inspect.ListType) else kind
        if isinstance(inner, msgspec.inspect.StructType):
            held = [d[field.encode_name] for d in data if field.encode_name in d]
            yield inner.cls, [item for h in held for item in (h if isinstance(h, list) else [h])]


@pytest.mark.parametrize("name", EVENT_TYPES)
def test_the_corpus_has_each_type_of_today_with_every_field_and_with_the_required_ones_only(name: str) -> None:
    version = EVENT_TYPES[name].SCHEMA
    written = _events_of(name, version)
    assert len(written) >= 2, (
        f"the corpus lacks two events of {name}, schema version {version}: see the head of this file"
    )
    for struct, objects in _structs(name, written):
        every = {f.encode_name for f in msgspec.structs.fields(struct)}
        required = {f.encode_name for f in msgspec.structs.fields(struct) if f.required}
        assert every in [set(o) for o in objects], (
            f"no event of the corpus has every field of {struct.__name__}: {every}"
        )
        assert required in [set(o) for o in objects], f"no event of the corpus has only what {struct.__name__} requires"


@pytest.mark.parametrize("name", EVENT_TYPES)
def test_the_corpus_has_each_type_in_every_schema_version_there_is_a_step_from(name: str) -> None:
    for version in (v for kind, v in STEPS if kind == name):
        assert len(_events_of(name, version)) >= 2


# -- that a change which loses something is found -----------------------------------------------------------------------


class _Base(EventData, frozen=True):
    TYPE: ClassVar[str] = EmbeddingAbandoned.TYPE

    request_id: str
    agent: str
    attempt: int
    at: int
    instance: str
    model: str
    space: str


class Lost(_Base, frozen=True):
    inputs: int
    thread: str | None = None


class Renamed(_Base, frozen=True):
    inputs: int
    thread_id: str | None = None
    task: str | None = None


class RenamedRequired(_Base, frozen=True):
    texts: int
    thread: str | None = None
    task: str | None = None


class OtherDefault(_Base, frozen=True):
    inputs: int
    thread: str | None = ""
    task: str | None = None


class Retyped(_Base, frozen=True):
    inputs: float
    thread: str | None = None
    task: str | None = None


class Grown(_Base, frozen=True):
    inputs: int
    thread: str | None = None
    task: str | None = None
    reason: str | None = None
    steps: tuple[str, ...] = ()


def _found(struct: type[EventData]) -> list[str]:
    found = []
    for event, then in CORPUS:
        if event.type == struct.TYPE:
            try:
                found += differences(msgspec.json.decode(event.data, type=struct), then)
            except msgspec.ValidationError as error:
                found.append(str(error))
    return found


@pytest.mark.parametrize(
    ("struct", "what"),
    [
        (Lost, ".task is gone"),
        (Renamed, ".thread is gone"),
        (RenamedRequired, "missing required field `texts`"),
        (OtherDefault, ".thread was None, is ''"),
        (Retyped, ".inputs was 2, is 2.0"),
    ],
)
def test_a_field_lost_renamed_retyped_or_with_another_default_is_found(struct: type[EventData], what: str) -> None:
    assert any(what in found for found in _found(struct))


def test_a_new_optional_field_and_the_type_as_it_is_are_fine() -> None:
    assert _found(EmbeddingAbandoned) == []
    assert _found(Grown) == []


def test_a_loss_inside_a_list_of_a_field_is_found() -> None:
    event, then = next((e, t) for e, t in CORPUS if t.get("attempts"))
    now = decode_data(event.type, event.data, event.schema_version)
    assert differences(now, then) == []
    changed = then | {"attempts": [then["attempts"][0] | {"region": "eu"}, *then["attempts"][1:]]}
    assert differences(now, changed) == [".attempts[0].region is gone"]
    assert differences(now, then | {"attempts": []}) != []


def test_written_out_shows_defaults_that_the_encoding_leaves_out() -> None:
    data = decode_data("embedding.requested", next(e.data for e, _ in CORPUS if e.type == "embedding.requested"), 1)
    assert set(written_out(data)) == {f.encode_name for f in msgspec.structs.fields(data)}
