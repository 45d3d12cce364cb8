"""Lines of archived events: every byte of the data comes back, and nothing else is taken for an event."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from adapters.archive.lines import BadLine, checked, decode_line, encode_line
from adapters.archive.segment import SegmentWriter, check_segment, read_member
from domain.content_hash import content_hash
from domain.ports.event_log import LogDamaged, StoredEvent


def event(position: int = 1, **changes: object) -> StoredEvent:
    made = StoredEvent(
        position, bytes(range(16)), "acme", "request/acme/1", None, "a.b", 1, 1_700_000_000_000_001, b"{}", b""
    )
    made = msgspec.structs.replace(made, **changes)
    return msgspec.structs.replace(made, content_hash=content_hash(made))


@pytest.mark.parametrize(
    "data",
    [
        b"{}",
        b'{"n": 1.50, "big": 1e400, "long": 123456789012345678901234567890}',
        '{"text": "ä 🔥 \u2028 \u0085", "cr": "\\r\\n"}'.encode(),
        b'{"a": ",\\"data\\":{}", ",\\"data\\":": 1}',
        b'{"deep": ' + b"[" * 5000 + b"]" * 5000 + b"}",
        b'{"raw": "\r"}',
    ],
    ids=["empty", "numbers", "text", "the separator", "depth", "a carriage return"],
)
def test_data_comes_back_byte_for_byte_from_a_line_and_from_a_file(data: bytes, tmp_path: Path) -> None:
    one = event(data=data, tenant='a","data":{', stream="s\u2028\\", version=3)
    line = encode_line(one)
    assert checked(decode_line(line), 1) == one
    writer = SegmentWriter(tmp_path, "scratch")
    writer.add([one, two := event(2)])
    segment = writer.finish()
    check_segment(tmp_path, segment)
    assert [decode_line(line) for line in read_member(tmp_path, segment, 0)] == [one, two]


def test_a_line_that_says_it_is_shredded_is_the_same_event() -> None:
    line = encode_line(event(), shredded=True)
    assert b'"shredded":true' in line
    assert decode_line(line) == event()


@pytest.mark.parametrize(
    "line",
    [
        b"",
        b"{}",
        b'{"data":{}}',
        encode_line(event())[:-3],
        encode_line(event()).replace(b'"acme"', b"7"),
        encode_line(event()).replace(b'"tenant"', b'"tenants"'),
        encode_line(event()).replace(b"00010203", b"0001"),
    ],
)
def test_what_is_no_event_is_refused(line: bytes) -> None:
    with pytest.raises(BadLine, match="it is not an event"):
        decode_line(line)


@pytest.mark.parametrize(
    "changes",
    [
        {"tenant": "evil"}, {"stream": "x"}, {"version": 1}, {"type": "a.c"}, {"schema_version": 2}, {"recorded_at": 5},
        {"data": b'{"a": 1}'}, {"event_id": bytes(16)}, {"tenant": "acm", "stream": "erequest/acme/1"},
    ],
)  # fmt: skip
def test_a_change_of_any_column_shows(changes: dict[str, object]) -> None:
    with pytest.raises(BadLine, match="position 1 is not as it was written"):
        checked(msgspec.structs.replace(event(), **changes), 1)


def test_the_same_events_give_the_same_file_and_a_name_of_their_own(tmp_path: Path) -> None:
    names = []
    for data in (b"{}", b"{}", b'{"a": 1}'):
        writer = SegmentWriter(tmp_path, "scratch")
        writer.add([event(data=data)])
        names.append(writer.finish().file)
    assert names[0] == names[1] != names[2]
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(set(names))


def test_events_that_do_not_follow_each_other_make_no_member(tmp_path: Path) -> None:
    writer = SegmentWriter(tmp_path, "scratch")
    writer.add([event(1), event(2)])
    with pytest.raises(LogDamaged, match="it has position 4, expected 3") as found:
        writer.add([event(4)])
    assert found.value.position == 3
    writer.discard()
    assert list(tmp_path.iterdir()) == []
