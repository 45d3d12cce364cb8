"""Cursors say where to go on in one log and are refused by every other."""

from __future__ import annotations

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


@given(st.uuids(), st.integers(0, HEAD))
def test_a_cursor_leads_back_to_its_position(log: UUID, position: int) -> None:
    assert decode_cursor(encode_cursor(log, position), log, HEAD) == position


def test_a_cursor_of_another_log_is_refused_and_says_how_to_go_on() -> None:
    assert "start from the beginning" in refusal(encode_cursor(uuid4(), 3)).message


def test_a_cursor_ahead_of_the_log_is_refused() -> None:
    cursor = encode_cursor(LOG, 8)
    assert decode_cursor(cursor, LOG, 8) == 8
    assert "ahead" in refusal(cursor, head=7).message


@given(st.text(max_size=60))
def test_whatever_is_no_cursor_is_refused(text: str) -> None:
    refusal(text)


@given(st.integers(0, 33), st.sampled_from("AQgw-_Zb9:= "))
def test_only_the_very_characters_of_a_cursor_are_taken(place: int, char: str) -> None:
    cursor = encode_cursor(LOG, 0)
    damaged = cursor[:place] + char + cursor[place + 1 :]
    assume(damaged != cursor)
    refusal(damaged, head=0)


def test_a_longer_or_shorter_cursor_is_refused() -> None:
    cursor = encode_cursor(LOG, 77)
    for wrong in (cursor + "A", cursor[:-1], cursor + "==", " " + cursor, ""):
        refusal(wrong)
