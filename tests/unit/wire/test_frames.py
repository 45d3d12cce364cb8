from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from websockets.client import ClientProtocol
from websockets.frames import Opcode
from websockets.protocol import OPEN, Event
from websockets.uri import parse_uri

from gateway.wire.frames import BINARY, CLOSE, PING, FrameReader, close_payload, frame

LIMIT = 1000


class Seen:
    """What a reader told its handler, in order."""

    def __init__(self) -> None:
        self.events: list[tuple[object, ...]] = []

    def on_binary(self, payload: bytes) -> None:
        self.events.append(("binary", payload))

    def on_text(self) -> None:
        self.events.append(("text",))

    def on_ping(self, payload: bytes) -> None:
        self.events.append(("ping", payload))

    def on_pong(self, payload: bytes) -> None:
        self.events.append(("pong", payload))

    def on_close(self, code: int) -> None:
        self.events.append(("close", code))

    def on_violation(self, code: int, reason: str) -> None:
        self.events.append(("violation", code))


def client() -> ClientProtocol:
    """The websockets library's own client, as the oracle."""
    return ClientProtocol(parse_uri("ws://localhost/"), state=OPEN, max_size=None)


def read(data: bytes, cuts: list[int] | None = None, limit: int = LIMIT) -> list[tuple[object, ...]]:
    seen = Seen()
    reader = FrameReader(seen, limit)
    at = 0
    for cut in [*sorted(c % (len(data) + 1) for c in cuts or []), len(data)]:
        reader.feed(data[at:cut])
        at = cut
    return seen.events


messages = st.one_of(
    st.tuples(st.just("binary"), st.binary(max_size=LIMIT)),
    st.tuples(st.just("ping"), st.binary(max_size=125)),
    st.tuples(st.just("pong"), st.binary(max_size=125)),
)


@given(st.lists(st.tuples(messages, st.integers(0, 4)), max_size=8), st.lists(st.integers(min_value=0), max_size=20))
def test_whatever_a_client_sends_is_read_alike_however_the_bytes_are_cut(
    sent: list[tuple[tuple[str, bytes], int]], cuts: list[int]
) -> None:
    oracle = client()
    for (kind, payload), fragments in sent:
        if kind == "ping":
            oracle.send_ping(payload)
        elif kind == "pong":
            oracle.send_pong(payload)
        elif fragments == 0:
            oracle.send_binary(payload)
        else:
            size = len(payload) // fragments + 1
            parts = [payload[i : i + size] for i in range(0, len(payload), size)] or [b""]
            oracle.send_binary(parts[0], fin=len(parts) == 1)
            for i, part in enumerate(parts[1:], 2):
                oracle.send_continuation(part, fin=i == len(parts))
    assert read(b"".join(oracle.data_to_send()), cuts) == [message for message, _ in sent]


@given(st.binary(max_size=70_000), st.sampled_from([BINARY, PING]))
@settings(max_examples=30)
def test_a_client_of_another_make_reads_our_frames(payload: bytes, opcode: int) -> None:
    payload = payload if opcode == BINARY else payload[:125]
    oracle = client()
    oracle.receive_data(frame(opcode, payload) + frame(CLOSE, close_payload(4401, "no" * 100)))
    events: list[Event] = oracle.events_received()
    assert [(e.opcode, e.data) for e in events[:1]] == [(Opcode(opcode), payload)]  # type: ignore[union-attr]  # frames alone
    assert oracle.close_rcvd is not None
    assert oracle.close_rcvd.code == 4401


@given(st.binary(max_size=3000), st.lists(st.integers(min_value=0), max_size=10))
def test_random_bytes_end_in_an_orderly_way_and_are_not_hoarded(data: bytes, cuts: list[int]) -> None:
    events = read(data, cuts)
    ends = [e for e in events if e[0] in ("close", "violation")]
    assert len(ends) <= 1
    assert not ends or events[-1] == ends[0]


def masked(first: int, payload: bytes, length: bytes | None = None) -> bytes:
    return bytes((first, 0x80 | len(payload))) + b"\0\0\0\0" + payload if length is None else bytes((first,)) + length


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (bytes((0x82, 1)) + b"x", 1002),
        (masked(0xC2, b"x"), 1002),
        (masked(0x83, b"x"), 1002),
        (masked(0x80, b"x"), 1002),
        (masked(0x09, b"x"), 1002),
        (masked(0x02, b"x") + masked(0x82, b"y"), 1002),
        (masked(0x88, b"\x03"), 1002),
        (masked(0x88, b"\x03\xed"), 1002),
        (masked(0x88, b"\x03\xe8\xff"), 1007),
        (bytes((0x89, 0xFE, 0, 126)), 1002),
        (bytes((0x82, 0xFE, 0xFF, 0xFF)), 1009),
        (bytes((0x82, 0xFF)) + (100_000_000).to_bytes(8, "big"), 1009),
        (masked(0x02, b"x" * 125) * 1 + masked(0x00, b"x" * 125) * 8, 1009),
    ],
)
def test_a_violation_is_named_by_its_close_code_and_ends_the_reading(data: bytes, code: int) -> None:
    events = read(data + masked(0x82, b"after"))
    assert events == [("violation", code)]


def test_a_frame_too_big_is_refused_by_its_header_before_a_byte_of_it_is_kept() -> None:
    seen = Seen()
    reader = FrameReader(seen, LIMIT)
    reader.feed(bytes((0x82, 0xFF)) + (LIMIT + 1).to_bytes(8, "big"))
    assert seen.events == [("violation", 1009)]
    reader.feed(b"x" * 100_000)
    assert len(reader._buffer) == 0


def test_a_message_of_exactly_the_limit_passes_and_the_limit_may_be_raised() -> None:
    oracle = client()
    oracle.send_binary(b"x" * LIMIT)
    assert read(b"".join(oracle.data_to_send())) == [("binary", b"x" * LIMIT)]
    seen = Seen()
    reader = FrameReader(seen, LIMIT)
    reader.max_size = 100_000
    oracle.send_binary(b"y" * 100_000)
    reader.feed(b"".join(oracle.data_to_send()))
    assert seen.events == [("binary", b"y" * 100_000)]


def test_endless_empty_fragments_cost_no_memory() -> None:
    seen = Seen()
    reader = FrameReader(seen, LIMIT)
    reader.feed(masked(0x02, b"") + masked(0x00, b"") * 10_000)
    assert (len(reader._buffer), reader._fragments) == (0, bytearray())
    reader.feed(masked(0x80, b"end"))
    assert seen.events == [("binary", b"end")]


def test_a_text_message_is_told_once_and_its_fragments_are_dropped() -> None:
    assert read(masked(0x01, b"a") + masked(0x00, b"b") + masked(0x80, b"c") + masked(0x82, b"d")) == [
        ("text",),
        ("binary", b"d"),
    ]
