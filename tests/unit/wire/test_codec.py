from __future__ import annotations

import time
from typing import Any

import msgpack
import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.wire import messages
from gateway.wire.codec import Refused, decode, encode
from gateway.wire.salvage import salvage_id

OK: dict[str, Any] = {"type": "embedding.generate", "id": "q", "input": "hello"}


def pack(value: Any) -> bytes:
    packed: bytes = msgpack.packb(value, unicode_errors="surrogatepass")
    return packed


def refusal(data: bytes) -> Refused:
    with pytest.raises(Refused) as caught:
        decode(data)
    return caught.value


def with_bytes(name: str, raw: bytes) -> bytes:
    """The good message with one more field, its value given as bytes."""
    return bytes((0x80 | len(OK) + 1,)) + pack(OK)[1:] + pack(name) + raw


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\xc1",
        b"not msgpack",
        pack([1, 2]),
        pack(3),
        pack(None),
        pack("text"),
        pack(OK) + b"\x01",
        pack(OK)[:-1],
        b"\x91" * 100_000,
    ],
)
def test_what_is_no_messagepack_map_is_malformed(data: bytes) -> None:
    refused = refusal(data)
    assert refused.malformed
    assert refused.error.code == "invalid_message"


@pytest.mark.parametrize(
    ("fields", "code", "field", "index"),
    [
        ({"input": 3}, "invalid_message", "input", None),
        ({"input": b"bytes"}, "invalid_message", "input", None),
        ({"input": ["a", 3]}, "invalid_message", "input", 1),
        ({"input": ["a", None]}, "invalid_message", "input", 1),
        ({"dimensions": "4"}, "invalid_message", "dimensions", None),
        ({"dimensions": 4.0}, "invalid_message", "dimensions", None),
        ({"dimensions": True}, "invalid_message", "dimensions", None),
        ({"dimensions": 2**63}, "invalid_message", "dimensions", None),
        ({"dimensions": 2**64 - 1}, "invalid_message", "dimensions", None),
        ({"stream": 1}, "invalid_message", "stream", None),
        ({"model": 1}, "invalid_message", "model", None),
        ({"metadata": {"a": 1}}, "invalid_message", "metadata", None),
        ({"metadata": {1: "a"}}, "invalid_message", "metadata", None),
        ({"model": ""}, "invalid_request", "model", None),
        ({"model": "m" * 129}, "invalid_request", "model", None),
        ({"encoding": "float64"}, "invalid_request", "encoding", None),
        ({"input_type": "poem"}, "invalid_request", "input_type", None),
        ({"failover": "never"}, "invalid_request", "failover", None),
        ({"cache": 1}, "invalid_message", "cache", None),
        ({"metadata": {str(i): "" for i in range(300)}}, "invalid_request", "metadata", None),
        ({"input": "nul\0"}, "invalid_message", "input", None),
        ({"input": ["a", "nul\0"]}, "invalid_message", "input", 1),
        ({"model": "nul\0"}, "invalid_message", "model", None),
        ({"metadata": {"nul\0": ""}}, "invalid_message", "metadata", None),
        ({"input": "\ud800"}, "invalid_message", "input", None),
        ({"input": ["a", "\udfff"]}, "invalid_message", "input", None),
        ({"thread": "\ud800"}, "invalid_message", "thread", None),
    ],
)
def test_a_wrong_field_is_named_with_its_code_and_the_id_is_echoed(
    fields: dict[str, Any], code: str, field: str, index: int | None
) -> None:
    refused = refusal(pack({**OK, **fields}))
    assert not refused.malformed
    assert (refused.error.code, refused.message_id, refused.kind) == (code, "q", "embedding.generate")
    assert refused.error.details is not None
    assert refused.error.details["field"] == field
    assert refused.error.details.get("index") == index


@pytest.mark.parametrize(
    ("message", "code", "message_id"),
    [
        ({"id": "q"}, "invalid_message", "q"),
        ({"id": "q", "type": 3}, "invalid_message", "q"),
        ({"id": "q", "type": "usage.subscribe"}, "unknown_type", "q"),
        ({"type": "nonsense"}, "unknown_type", None),
        ({"type": "embedding.generate", "input": "a"}, "invalid_message", None),
        ({**OK, "id": ""}, "invalid_message", None),
        ({**OK, "id": "x" * 65}, "invalid_message", None),
        ({**OK, "id": 7}, "invalid_message", None),
        ({**OK, "id": "a\0b"}, "invalid_message", None),
        ([("type", "embedding.generate"), (1, 2)], "invalid_message", None),
        ({"type": "session.open", "id": "o", "agent": {}}, "invalid_message", "o"),
        ({"type": "session.open", "id": "o"}, "invalid_message", "o"),
    ],
)
def test_a_bad_envelope_is_refused_with_the_id_where_it_can_be_read(
    message: Any, code: str, message_id: str | None
) -> None:
    refused = refusal(pack(dict(message)))
    assert (refused.error.code, refused.message_id) == (code, message_id)
    assert not refused.malformed


def test_choices_are_listed_for_whoever_guessed_wrong() -> None:
    message = refusal(pack({**OK, "encoding": "f32"})).error.message
    assert all(choice in message for choice in ("float32", "float16", "int8", "ubinary"))


def test_unknown_fields_are_skipped_whatever_they_hold() -> None:
    message = decode(pack({**OK, "later": {"a": [1, 2**64 - 1, b"x", {"b": None}]}}))
    assert message == messages.EmbeddingGenerate(id="q", input="hello")
    assert decode(with_bytes("deep", b"\x91" * 300 + b"\x01")) == messages.EmbeddingGenerate(id="q", input="hello")


@pytest.mark.parametrize(
    "data",
    [
        with_bytes("bomb", b"\x91" * 5_000_000),
        with_bytes("bomb", b"\x81\xa1k" * 1_000_000),
        with_bytes("declared", b"\xdd\x80\x00\x00\x00"),
        with_bytes("declared", b"\xdf\x80\x00\x00\x00"),
        b"\x83"
        + pack("type")
        + pack("embedding.generate")
        + pack("id")
        + pack("q")
        + pack("input")
        + b"\xdd\x80\x00\x00\x00",
        b"\xdf\x80\x00\x00\x00",
        b"\x83"
        + pack("type")
        + pack("embedding.generate")
        + pack("id")
        + pack("q")
        + pack("input")
        + b"\xdb\x7f\xff\xff\xff",
    ],
)
def test_bombs_and_lies_about_length_are_refused_at_once(data: bytes) -> None:
    start = time.perf_counter()
    assert refusal(data).error.code in ("invalid_message", "invalid_request")
    assert time.perf_counter() - start < 0.5


@pytest.mark.parametrize(
    "data",
    [
        with_bytes("bomb", b"\x91" * 100_000),
        with_bytes("declared", b"\xdd\x80\x00\x00\x00"),
        pack(OK)[:-1],
        pack(OK) + b"\x01",
        pack({"a": 1, "b": 1.5, "c": None, "d": b"x" * 300, "e": -70_000, "f": True, **OK})[:-1],
    ],
)
def test_the_id_of_a_broken_message_is_salvaged(data: bytes) -> None:
    assert refusal(data).message_id == "q"


@pytest.mark.parametrize(
    "data", [b"", pack([1]), b"\x81\xa2id", b"\x81\xa2id\xa2x", b"\x82\xa1a\x90\xa2id\xa1q\xc1", b"\xde\xff"]
)
def test_no_id_is_made_up_for_a_broken_message(data: bytes) -> None:
    assert refusal(data).message_id is None


@given(st.binary(max_size=100).map(lambda b: b"\x8f" + b))
def test_salvaging_survives_anything(data: bytes) -> None:
    found = salvage_id(data)
    assert found is None or found.encode() in data


def test_a_large_message_may_only_be_large_by_its_texts() -> None:
    many = {f"task {i}": "m" for i in range(20_000)}
    refused = refusal(pack({"type": "agent.register", "id": "q", "preferences": {"task_models": many}}))
    assert (refused.error.code, refused.message_id) == ("invalid_message", "q")
    assert isinstance(decode(pack({**OK, "input": ["x" * 50_000] * 20})), messages.EmbeddingGenerate)


texts = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=40)
ids = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), min_size=1, max_size=64)
preferences = st.fixed_dictionaries(
    {},
    optional={
        "strategy": st.sampled_from(["cost", "fixed"]),
        "models": st.lists(texts, max_size=3),
        "task_models": st.dictionaries(texts, texts, max_size=3),
        "required_dimensions": st.integers(1, 10_000),
    },
)
client_messages = st.one_of(
    st.fixed_dictionaries(
        {"type": st.just("embedding.generate"), "id": ids, "input": texts | st.lists(texts, max_size=5)},
        optional={
            "model": ids,
            "dimensions": st.integers(-(2**63), 2**63 - 1),
            "encoding": st.sampled_from(["float32", "int8"]),
            "stream": st.booleans(),
            "deadline_ms": st.integers(1, 2**63 - 1),
            "metadata": st.dictionaries(texts, texts, max_size=3),
            "dry_run": st.booleans(),
            "future": st.lists(st.integers() | texts, max_size=2).filter(
                lambda v: all(not isinstance(i, int) or abs(i) < 2**63 for i in v)
            ),
        },
    ),
    st.fixed_dictionaries({"type": st.just("request.cancel"), "id": ids}),
    st.fixed_dictionaries({"type": st.just("agent.register"), "id": ids, "preferences": preferences}),
    st.fixed_dictionaries(
        {"type": st.just("session.open"), "id": ids, "agent": st.fixed_dictionaries({"id": ids})},
        optional={"token": texts, "preferences": preferences},
    ),
)


@given(client_messages)
def test_every_good_client_message_of_the_independent_codec_is_read_field_for_field(sent: dict[str, Any]) -> None:
    read = decode(pack(sent))
    for name, value in sent.items():
        if name == "preferences":
            assert all(getattr(getattr(read, name), k) == v for k, v in value.items())
        elif name == "agent":
            assert getattr(read, name).id == value["id"]
        elif name not in ("type", "future"):
            assert getattr(read, name) == value


SERVER_MESSAGES: list[msgspec.Struct] = [
    messages.SessionOpened("o", "s", "acme", "a", {"name": "emberlog", "version": "1"}, messages.Limits()),
    messages.AgentRegistered("r", "a", 3),
    messages.ServerDraining(1000),
    messages.EmbeddingChunk("q", 5, 2, b"\0\1", b"\2"),
    messages.EmbeddingChunk("q", 5, 2, b"\0\1"),
    messages.Error("invalid_request", "wrong", False, id="q", retry_after_ms=3, details={"field": "input", "index": 2}),
    messages.Error("internal", "wrong", True),
    messages.EmbeddingResult(
        "q", "e", "m", "p", "ep", "s", 4, "int8", 1, messages.Usage(1, 1, 0, [0], False), messages.Cost(None, "p"), None,
        messages.Timings(1.0, 2.0, 3.0), True, vectors=b"\1", scales=b"\2", notices=["n"],
    ),
]  # fmt: skip


@pytest.mark.parametrize("message", SERVER_MESSAGES, ids=lambda m: type(m).__name__)
def test_every_server_message_is_read_by_the_independent_codec_field_for_field(message: msgspec.Struct) -> None:
    read = msgpack.unpackb(encode(message))
    assert read.pop("type") == message.__struct_config__.tag
    expected = {n: v for n in message.__struct_fields__ if (v := getattr(message, n)) is not msgspec.UNSET}
    assert read == msgspec.to_builtins(expected, builtin_types=(bytes,))


@given(st.binary(max_size=300) | client_messages.map(pack).flatmap(lambda b: st.tuples(st.just(b), st.integers(0, max(0, len(b) - 1)), st.binary(max_size=4))).map(lambda t: t[0][: t[1]] + t[2] + t[0][t[1] + len(t[2]) :]))  # fmt: skip
def test_mutated_messages_are_decoded_or_refused_and_nothing_else(data: bytes) -> None:
    try:
        decode(data)
    except Refused as refused:
        code = refused.error.code
    else:
        code = "invalid_message"
    assert code in ("invalid_message", "invalid_request", "unknown_type")
