"""Dedupe keys and event ids: the same attempt is named alike everywhere, different ones never."""

from __future__ import annotations

import uuid

from hypothesis import given
from hypothesis import strategies as st

from domain.keys import OUTCOME, REEMBEDDED, REQUESTED, event_id, request_key

NAMES = st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=64)  # the wire refuses NUL
ATTEMPTS = st.tuples(NAMES, NAMES, st.integers(0, 1000), st.sampled_from([REQUESTED, OUTCOME, REEMBEDDED]))
TIMES = st.integers(-(2**63), 2**63 - 1)


@given(ATTEMPTS, ATTEMPTS)
def test_keys_are_equal_exactly_when_tenant_id_attempt_and_kind_are(
    left: tuple[str, str, int, bytes], right: tuple[str, str, int, bytes]
) -> None:
    assert (request_key(*left) == request_key(*right)) == (left == right)
    assert len(request_key(*left)) == 16


def test_moving_a_character_between_tenant_and_id_gives_another_key() -> None:
    assert request_key("ab", "c", 1, OUTCOME) != request_key("a", "bc", 1, OUTCOME)
    assert request_key("a", "b1", 1, OUTCOME) != request_key("a", "b", 11, OUTCOME)


def test_keys_and_ids_are_those_of_every_build() -> None:
    """Frozen: a change would let a resend over an upgrade be billed twice."""
    key = request_key("acme", "request-1", 1, OUTCOME)
    assert key.hex() == "863ac74bc91ad28d52cbfb99e9ad3ab8"
    assert event_id(key, 1_700_000_000_000_000).hex() == "c50fb3ec8e68848b838dcb79ec03cfb6"


@given(ATTEMPTS, TIMES, TIMES)
def test_an_id_used_again_at_another_time_is_another_event(
    attempt: tuple[str, str, int, bytes], first: int, again: int
) -> None:
    key = request_key(*attempt)
    assert (event_id(key, first) == event_id(key, again)) == (first == again)


@given(ATTEMPTS, TIMES)
def test_an_event_id_is_a_version_8_uuid(attempt: tuple[str, str, int, bytes], at: int) -> None:
    made = uuid.UUID(bytes=event_id(request_key(*attempt), at))
    assert (made.version, made.variant) == (8, uuid.RFC_4122)
