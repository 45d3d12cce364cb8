"""Cursors say where to go on in one log, tell nothing else, and are refused by every other log."""

from __future__ import annotations

import base64
import time
from collections.abc import Callable
from itertools import pairwise
from uuid import UUID, uuid4

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from domain.cursor import decode_cursor, encode_cursor
from domain.errors import GatewayError

LOG = UUID(int=5)
HEAD = 2**62


def refusal(cursor: str, head: int = HEAD) -> GatewayError:
    with pytest.raises(GatewayError) as caught:
        decode_cursor(cursor, LOG, head)
    assert caught.value.code == "invalid_cursor"
    return caught.value


def raw(cursor: str) -> bytes:
    return base64.urlsafe_b64decode(cursor)


def text(content: bytes) -> str:
    return base64.urlsafe_b64encode(content).decode()


@given(st.uuids(), st.integers(0, HEAD))
def test_a_cursor_leads_back_to_its_position(log: UUID, position: int) -> None:
    cursor = encode_cursor(log, position)
    assert decode_cursor(cursor, log, HEAD) == position
    assert encode_cursor(log, position) == cursor


def test_a_cursor_of_another_log_is_refused_and_says_how_to_go_on() -> None:
    message = refusal(encode_cursor(uuid4(), 3)).message
    assert "another log" in message
    assert "start from the beginning" in message


def test_a_cursor_ahead_of_the_log_is_refused() -> None:
    cursor = encode_cursor(LOG, 8)
    assert decode_cursor(cursor, LOG, 8) == 8
    assert "ahead" in refusal(cursor, head=7).message


@given(st.text(max_size=60))
def test_whatever_is_no_cursor_is_refused(given_text: str) -> None:
    refusal(given_text)


@given(st.binary(min_size=21, max_size=21))
def test_whatever_has_only_the_length_of_a_cursor_is_refused(content: bytes) -> None:
    refusal(text(content))


@given(st.integers(0, HEAD), st.integers(0, 21 * 8 - 1))
def test_a_cursor_with_any_bit_flipped_is_refused(position: int, bit: int) -> None:
    content = bytearray(raw(encode_cursor(LOG, position)))
    content[bit // 8] ^= 1 << bit % 8
    message = refusal(text(bytes(content))).message
    assert ("another log" in message) == (1 <= bit // 8 <= 4)


@given(st.integers(0, 27), st.sampled_from("AQgw-_Zb9:= +/"))
def test_only_the_very_characters_of_a_cursor_are_taken(place: int, char: str) -> None:
    cursor = encode_cursor(LOG, 0)
    damaged = cursor[:place] + char + cursor[place + 1 :]
    assume(damaged != cursor)
    refusal(damaged, head=0)


def test_a_longer_or_shorter_cursor_is_refused() -> None:
    cursor = encode_cursor(LOG, 77)
    for wrong in (cursor + "A", cursor[:-1], cursor + "==", " " + cursor, cursor + "\n", ""):
        refusal(wrong)


def test_a_cursor_of_the_first_layout_which_showed_its_position_is_refused() -> None:
    plain = base64.urlsafe_b64encode(bytes([1]) + LOG.bytes + (3).to_bytes(8, "big")).decode().rstrip("=")
    assert "not a cursor" in refusal(plain).message


# -- what a cursor tells ------------------------------------------------------------------------------------------------


def plain_cursor(log: UUID, position: int) -> str:
    """Negative control: the same bytes without the cipher."""
    return text(raw(encode_cursor(log, 0))[:5] + position.to_bytes(8, "big") + bytes(8))


def bits_that_differ(encode: Callable[[UUID, int], str], first: int) -> int:
    """Of the cursors behind `first` and the position after it, which must begin alike."""
    one, two = raw(encode(LOG, first)), raw(encode(LOG, first + 1))
    assert one[:5] == two[:5]
    return (int.from_bytes(one[5:], "big") ^ int.from_bytes(two[5:], "big")).bit_count()


def test_the_cursors_of_neighbours_share_nothing_but_the_tag() -> None:
    """Of 128 bits about 64 differ; 28 or fewer of random ones would once in 10^10 pairs."""
    for first in (0, 1, 2, 255, 256, 10**6, 2**40 - 1, *range(10_000, 10_400)):
        assert bits_that_differ(encode_cursor, first) > 28
    assert bits_that_differ(plain_cursor, 10_000) <= 28


def test_cursors_do_not_sort_as_their_positions_do() -> None:
    def rising(encode: Callable[[UUID, int], str]) -> int:
        cursors = [raw(encode(LOG, position)) for position in range(1001)]
        return sum(a < b for a, b in pairwise(cursors))

    assert 400 < rising(encode_cursor) < 600
    assert rising(plain_cursor) == 1000


def test_one_position_has_unrelated_cursors_in_two_logs() -> None:
    other = raw(encode_cursor(UUID(int=6), 42))
    mine = raw(encode_cursor(LOG, 42))
    assert mine[1:5] != other[1:5]
    assert (int.from_bytes(mine[5:], "big") ^ int.from_bytes(other[5:], "big")).bit_count() > 28


def test_a_cursor_does_not_hold_the_incarnation() -> None:
    log = uuid4()
    content = raw(encode_cursor(log, 42))
    assert not any(log.bytes[at : at + 4] in content for at in range(13))


def test_a_cursor_costs_microseconds() -> None:
    """At most 5 µs of processor time, the best of several rounds: the machine may be busy."""

    cursors = [encode_cursor(LOG, position) for position in range(2000)]

    def micros(work: Callable[[int], object]) -> float:
        begin = time.process_time_ns()
        for position in range(2000):
            work(position)
        return (time.process_time_ns() - begin) / 2000 / 1000

    assert min(micros(lambda n: encode_cursor(LOG, n)) for _ in range(10)) < 5
    assert min(micros(lambda n: decode_cursor(cursors[n], LOG, HEAD)) for _ in range(10)) < 5
